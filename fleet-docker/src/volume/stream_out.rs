//! Writes a zstd file on all cores: the caller fills chunks, workers compress each into a frame of its own, one
//! thread writes the frames in order, and one syncs and reads back what was written while the rest goes on.
//!
//! Memory is bounded by the number of chunks in flight, whatever is written. A file is [`Sealed`] only after every
//! byte was synced, read back and found to be what was meant.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::error::VolumeError;
use super::files::{Files, StoreFile};
use super::hash::Sha256Hash;

/// Bytes of content in a frame. Several times the window of the fastest level, so that cutting costs next to nothing.
pub(super) const CHUNK: usize = 2 << 20;

/// Bytes written between two syncs: enough to keep a disk busy, little enough to be spread over the whole pass.
const SYNC_STEP: u64 = 128 << 20;

/// Bytes read back at once.
const READ_BACK: usize = 1 << 20;

/// Bytes between two looks at the free space.
const SPACE_STEP: u64 = 16 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamOptions {
    /// Level of zstd.
    pub(super) level: i32,
    /// Threads that compress.
    pub(super) workers: usize,
    /// Bytes that must stay free where the file lies.
    pub(super) reserve_bytes: u64,
}

/// A finished file: synced, read back, equal to what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// Bytes before compression.
    pub(super) raw_bytes: u64,
    /// SHA-256 of the bytes on disk.
    pub(super) sha256: Sha256Hash,
}

/// Buffers that are used again: fresh memory would have to be zeroed by the kernel each time.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    pub(super) fn take(&self) -> Vec<u8> {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.pop().unwrap_or_default()
    }

    pub(super) fn give(&self, buffer: Vec<u8>) {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.push(buffer);
    }
}

type Frame = Result<Vec<u8>, VolumeError>;
type Job = (Vec<u8>, usize, SyncSender<Frame>);

/// A zstd file being written.
#[derive(Debug)]
pub(super) struct StreamOut {
    current: Vec<u8>,
    used: usize,
    raw_bytes: u64,
    chunks: Pool,
    lines: Option<Lines>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<Result<(u64, Sha256Hash), VolumeError>>>,
}

/// Where chunks go: to whichever worker is free, and in order to the writer.
#[derive(Debug)]
struct Lines {
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Frame>>,
}

impl StreamOut {
    /// Makes the file and starts its threads.
    pub(super) fn create(
        files: &Arc<dyn Files>,
        path: &Path,
        options: StreamOptions,
    ) -> Result<Self, VolumeError> {
        let file = files.create(path).map_err(VolumeError::io("make", path))?;
        let workers = options.workers.max(1);
        let (jobs, jobs_in) = sync_channel::<Job>(workers);
        let (order, order_in) = sync_channel(2 * workers);
        let jobs_in = Arc::new(Mutex::new(jobs_in));
        let (chunks, frames) = (Pool::default(), Pool::default());
        let workers = (0..workers)
            .map(|_| {
                let (jobs, chunks, frames) = (jobs_in.clone(), chunks.clone(), frames.clone());
                std::thread::spawn(move || compress_jobs(&jobs, options.level, &chunks, &frames))
            })
            .collect();
        let writer = Writer {
            files: files.clone(),
            file,
            path: path.to_owned(),
            reserve_bytes: options.reserve_bytes,
            frames,
        };
        Ok(Self {
            current: vec![0; CHUNK],
            used: 0,
            raw_bytes: 0,
            chunks,
            lines: Some(Lines { jobs, order }),
            workers,
            writer: Some(std::thread::spawn(move || writer.run(&order_in))),
        })
    }

    /// Takes some bytes.
    pub(super) fn write(&mut self, mut data: &[u8]) -> Result<(), VolumeError> {
        while !data.is_empty() {
            let filled = self.fill(data.len(), |buf| {
                buf.copy_from_slice(&data[..buf.len()]);
                Ok(buf.len())
            })?;
            data = &data[filled..];
        }
        Ok(())
    }

    /// Takes zeros.
    pub(super) fn write_zeros(&mut self, mut count: u64) -> Result<(), VolumeError> {
        while count > 0 {
            let most = usize::try_from(count).unwrap_or(CHUNK).min(CHUNK);
            count -= self.fill(most, |buf| {
                buf.fill(0);
                Ok(buf.len())
            })? as u64;
        }
        Ok(())
    }

    /// Lets the caller put at most `most` bytes straight into the chunk; returns how many it put.
    pub(super) fn fill(
        &mut self,
        most: usize,
        put: impl FnOnce(&mut [u8]) -> Result<usize, VolumeError>,
    ) -> Result<usize, VolumeError> {
        let room = most.min(CHUNK - self.used);
        let count = put(&mut self.current[self.used..self.used + room])?;
        self.used += count;
        self.raw_bytes += count as u64;
        if self.used == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    /// Ends the file and waits until it is sealed.
    pub(super) fn finish(mut self) -> Result<Sealed, VolumeError> {
        if self.used > 0 {
            self.send()?;
        }
        let (bytes, sha256) = self.join()?;
        Ok(Sealed {
            bytes,
            raw_bytes: self.raw_bytes,
            sha256,
        })
    }

    fn send(&mut self) -> Result<(), VolumeError> {
        let mut next = self.chunks.take();
        next.resize(CHUNK, 0);
        let chunk = std::mem::replace(&mut self.current, next);
        let used = std::mem::take(&mut self.used);
        let (done, frame) = sync_channel(1);
        let sent = self.lines.as_ref().is_some_and(|lines| {
            lines.order.send(frame).is_ok() && lines.jobs.send((chunk, used, done)).is_ok()
        });
        if sent {
            Ok(())
        } else {
            Err(self.join().err().unwrap_or(VolumeError::WorkerLost))
        }
    }

    fn join(&mut self) -> Result<(u64, Sha256Hash), VolumeError> {
        self.lines = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(VolumeError::WorkerLost),
        }
    }
}

impl Drop for StreamOut {
    fn drop(&mut self) {
        // Nobody may remove the folder while a thread still writes below it.
        let _ = self.join();
    }
}

fn compress_jobs(jobs: &Mutex<Receiver<Job>>, level: i32, chunks: &Pool, frames: &Pool) {
    let mut compressor = new_compressor(level);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((chunk, used, done)) = job else { return };
        let frame = match &mut compressor {
            Ok(compressor) => compress(compressor, &chunk[..used], frames.take()),
            Err(_) => Err(VolumeError::WorkerLost),
        };
        chunks.give(chunk);
        // The writer is gone only after a failure of its own, which is the one to report.
        let _ = done.send(frame);
    }
}

fn new_compressor(level: i32) -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
    Ok(compressor)
}

fn compress(compressor: &mut Compressor<'_>, chunk: &[u8], mut frame: Vec<u8>) -> Frame {
    frame.clear();
    frame.reserve(compress_bound(chunk.len()));
    compressor
        .compress_to_buffer(chunk, &mut frame)
        .map_err(VolumeError::io(
            "compress",
            Path::new("a chunk of an archive"),
        ))?;
    Ok(frame)
}

/// The thread that writes.
struct Writer {
    files: Arc<dyn Files>,
    file: Arc<dyn StoreFile>,
    path: std::path::PathBuf,
    reserve_bytes: u64,
    frames: Pool,
}

impl Writer {
    fn run(&self, order: &Receiver<Receiver<Frame>>) -> Result<(u64, Sha256Hash), VolumeError> {
        std::thread::scope(|scope| {
            let (progress, written) = std::sync::mpsc::channel();
            let file = self.file.as_ref();
            let path = self.path.as_path();
            let reader = scope.spawn(move || sync_and_read_back(file, path, written));
            let wrote = self.write_frames(order, &progress);
            drop(progress);
            let read = reader.join().unwrap_or(Err(VolumeError::WorkerLost))?;
            let wrote = wrote?;
            if read == wrote {
                Ok(wrote)
            } else {
                Err(VolumeError::corrupt(
                    format!("{}, read back", path.display()),
                    format_args!("{} bytes with SHA-256 {}", wrote.0, wrote.1),
                    format_args!("{} bytes with SHA-256 {}", read.0, read.1),
                ))
            }
        })
    }

    fn write_frames(
        &self,
        order: &Receiver<Receiver<Frame>>,
        progress: &std::sync::mpsc::Sender<u64>,
    ) -> Result<(u64, Sha256Hash), VolumeError> {
        let mut hasher = Sha256::new();
        let (mut bytes, mut synced, mut looked) = (0, 0, None);
        for frame in order {
            let frame = frame.recv().map_err(|_| VolumeError::WorkerLost)??;
            if looked.is_none_or(|at| bytes - at >= SPACE_STEP) {
                keep_reserve(&self.files, &self.path, self.reserve_bytes)?;
                looked = Some(bytes);
            }
            self.file
                .write_at(bytes, &frame)
                .map_err(VolumeError::io("write", self.path.as_path()))?;
            hasher.update(&frame);
            bytes += frame.len() as u64;
            self.frames.give(frame);
            if bytes - synced >= SYNC_STEP {
                synced = bytes;
                // The reader is gone only after a failure of its own, which is reported.
                let _ = progress.send(bytes);
            }
        }
        let _ = progress.send(bytes);
        Ok((bytes, hasher.into()))
    }
}

/// Fails once fewer than these bytes are free where the file at `path` lies.
pub(super) fn keep_reserve(
    files: &Arc<dyn Files>,
    path: &Path,
    reserve: u64,
) -> Result<(), VolumeError> {
    let dir = path.parent().unwrap_or(path);
    let free = files
        .free_bytes(dir)
        .map_err(VolumeError::io("ask the free space of", dir))?;
    if free < reserve {
        return Err(VolumeError::NoSpace { free, reserve });
    }
    Ok(())
}

/// Syncs up to each mark as it comes and reads that part back; returns how much was read and its hash.
pub(super) fn sync_and_read_back(
    file: &dyn StoreFile,
    path: &Path,
    written: impl IntoIterator<Item = u64>,
) -> Result<(u64, Sha256Hash), VolumeError> {
    let mut hasher = Sha256::new();
    let mut buf = vec![0; READ_BACK];
    let mut done = 0;
    for mark in written {
        file.sync().map_err(VolumeError::io("sync", path))?;
        while done < mark {
            let most = usize::try_from(mark - done)
                .unwrap_or(READ_BACK)
                .min(READ_BACK);
            let count = file
                .read_back(done, &mut buf[..most])
                .map_err(VolumeError::io("read back", path))?;
            if count == 0 {
                break;
            }
            hasher.update(&buf[..count]);
            done += count as u64;
        }
    }
    Ok((done, hasher.into()))
}
