//! Reads a zstd file that [`super::stream_out`] wrote: one thread reads and hashes, workers decompress frame by
//! frame, the caller gets the content in order.
//!
//! A frame never gives more than [`CHUNK`] bytes, so no file can make this use more memory than the chunks in
//! flight, whatever it claims.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};
use zstd::bulk::Decompressor;
use zstd::zstd_safe::{compress_bound, find_frame_compressed_size};

use super::error::VolumeError;
use super::hash::Sha256Hash;
use super::stream_out::{CHUNK, Pool, Sealed};

/// Bytes read at once.
const READ: usize = 1 << 20;

type Content = Result<Vec<u8>, VolumeError>;
type Job = (Vec<u8>, SyncSender<Content>);

/// A zstd file being read.
#[derive(Debug)]
pub(super) struct StreamIn {
    path: PathBuf,
    current: Vec<u8>,
    pos: usize,
    raw_bytes: u64,
    contents: Pool,
    order: Option<Receiver<Receiver<Content>>>,
    workers: Vec<JoinHandle<()>>,
    reader: Option<JoinHandle<Result<(u64, Sha256Hash), VolumeError>>>,
}

impl StreamIn {
    /// Opens the file and starts its threads.
    pub(super) fn open(path: &Path, workers: usize) -> Result<Self, VolumeError> {
        let file = File::open(path).map_err(VolumeError::io("open", path))?;
        let workers = workers.max(1);
        let (jobs, jobs_in) = sync_channel::<Job>(workers);
        let (order, order_in) = sync_channel(2 * workers);
        let jobs_in = Arc::new(Mutex::new(jobs_in));
        let (frames, contents) = (Pool::default(), Pool::default());
        let workers = (0..workers)
            .map(|_| {
                let (jobs, frames, contents) = (jobs_in.clone(), frames.clone(), contents.clone());
                let path = path.to_owned();
                std::thread::spawn(move || decompress_jobs(&path, &jobs, &frames, &contents))
            })
            .collect();
        let mut reader = Reader {
            path: path.to_owned(),
            file,
            frames,
            jobs,
            order,
        };
        Ok(Self {
            path: path.to_owned(),
            current: Vec::new(),
            pos: 0,
            raw_bytes: 0,
            contents,
            order: Some(order_in),
            workers,
            reader: Some(std::thread::spawn(move || reader.run())),
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next bytes, at least one; empty at the end.
    pub(super) fn fill(&mut self) -> Result<&[u8], VolumeError> {
        while self.pos == self.current.len() {
            let next = self.order.as_ref().and_then(|order| order.recv().ok());
            let Some(content) = next else {
                return Ok(&[]);
            };
            let content = content.recv().map_err(|_| VolumeError::WorkerLost)??;
            self.raw_bytes += content.len() as u64;
            self.contents
                .give(std::mem::replace(&mut self.current, content));
            self.pos = 0;
        }
        Ok(&self.current[self.pos..])
    }

    /// Goes past bytes that [`Self::fill`] gave.
    pub(super) fn consume(&mut self, count: usize) {
        self.pos = (self.pos + count).min(self.current.len());
    }

    /// Hands the next `count` bytes to `take`, piece by piece.
    pub(super) fn take(
        &mut self,
        mut count: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        while count > 0 {
            let path = self.path.clone();
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(VolumeError::corrupt(
                    path.display().to_string(),
                    format_args!("{count} more bytes"),
                    "its end",
                ));
            }
            let part = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            take(&bytes[..part])?;
            self.consume(part);
            count -= part as u64;
        }
        Ok(())
    }

    /// Appends the bytes up to the next newline (taken, not appended) to `line`; false at the end of the file.
    pub(super) fn read_line(
        &mut self,
        line: &mut Vec<u8>,
        longest: usize,
    ) -> Result<bool, VolumeError> {
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return if line.is_empty() {
                    Ok(false)
                } else {
                    Err(self.damaged("a newline at its end", "none"))
                };
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = end.unwrap_or(bytes.len());
            if line.len() + part > longest {
                return Err(self.damaged(format_args!("lines of at most {longest} bytes"), "more"));
            }
            line.extend_from_slice(&bytes[..part]);
            self.consume(part + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// Asserts that everything was consumed; returns what was read.
    pub(super) fn finish(mut self) -> Result<Sealed, VolumeError> {
        if !self.fill()?.is_empty() {
            return Err(self.damaged("its end", "more content"));
        }
        let (bytes, sha256) = self.join()?;
        Ok(Sealed {
            bytes,
            raw_bytes: self.raw_bytes,
            sha256,
        })
    }

    fn damaged(
        &self,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> VolumeError {
        VolumeError::corrupt(self.path.display().to_string(), expected, found)
    }

    fn join(&mut self) -> Result<(u64, Sha256Hash), VolumeError> {
        self.order = None;
        let read = match self.reader.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(VolumeError::WorkerLost),
        };
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        read
    }
}

impl Drop for StreamIn {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

struct Reader {
    path: PathBuf,
    file: File,
    frames: Pool,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Content>>,
}

impl Reader {
    fn run(&mut self) -> Result<(u64, Sha256Hash), VolumeError> {
        let longest = compress_bound(CHUNK) + 64;
        let mut hasher = Sha256::new();
        let mut bytes = 0;
        let mut buf = vec![0; READ];
        let mut pending = Vec::with_capacity(longest + READ);
        loop {
            let count = self
                .file
                .read(&mut buf)
                .map_err(VolumeError::io("read", self.path.as_path()))?;
            hasher.update(&buf[..count]);
            bytes += count as u64;
            pending.extend_from_slice(&buf[..count]);
            let used = self.send_frames(&pending)?;
            pending.drain(..used);
            if pending.len() > longest || (count == 0 && !pending.is_empty()) {
                return self.give_up();
            }
            if count == 0 {
                return Ok((bytes, hasher.into()));
            }
        }
    }

    /// Sends every whole frame at the start of `pending`; returns the bytes they take.
    fn send_frames(&self, pending: &[u8]) -> Result<usize, VolumeError> {
        let mut used = 0;
        while used < pending.len() {
            // An error is a frame that is not there to its end, or no frame; the caller sees which.
            let Ok(len) = find_frame_compressed_size(&pending[used..]) else {
                break;
            };
            let mut frame = self.frames.take();
            frame.clear();
            frame.extend_from_slice(&pending[used..used + len]);
            used += len;
            let (done, content) = sync_channel(1);
            if self.order.send(content).is_err() || self.jobs.send((frame, done)).is_err() {
                return Err(VolumeError::Cancelled);
            }
        }
        Ok(used)
    }

    /// Hands the damage to the consumer, who stands at exactly this place.
    fn give_up<T>(&self) -> Result<T, VolumeError> {
        let damage = || {
            VolumeError::corrupt(
                self.path.display().to_string(),
                "whole zstd frames of fleet's size",
                "something else or a cut frame",
            )
        };
        let (done, content) = sync_channel(1);
        let _ = done.send(Err(damage()));
        let _ = self.order.send(content);
        Err(damage())
    }
}

fn decompress_jobs(path: &Path, jobs: &Mutex<Receiver<Job>>, frames: &Pool, contents: &Pool) {
    let mut decompressor = Decompressor::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((frame, done)) = job else { return };
        let mut content = contents.take();
        content.clear();
        content.reserve_exact(CHUNK);
        let result = match &mut decompressor {
            Ok(decompressor) => decompressor
                .decompress_to_buffer(&frame, &mut content)
                .map_err(|error| {
                    VolumeError::corrupt(
                        path.display().to_string(),
                        format_args!("frames of at most {CHUNK} bytes"),
                        error,
                    )
                })
                .map(|_| content),
            Err(_) => Err(VolumeError::WorkerLost),
        };
        frames.give(frame);
        let _ = done.send(result);
    }
}
