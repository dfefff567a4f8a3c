//! The helper's side: answers questions with the same code that fleet uses where it sees the volumes itself.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::ids::{InstanceId, SnapshotId};
use fleet_core::model::{HttpCheck, SnapshotInfo};
use fleet_core::ports::{PortError, PortErrorKind, ProbeVerdict, SnapshotRequest};
use serde::Serialize;

use super::exchange::{receive, send};
use super::frame::{self, Tag};
use super::message::{Ask, Failure, FileBegins, Verdict};
use crate::health::ask_addresses;
use crate::volume::exchange::Bench;
use crate::volume::{OsFiles, SnapshotOptions, VolumeError};

/// Where the helper keeps what it works on: in its own container, gone with it.
const FOLDER: &str = "/fleet-snapshots";

/// Answers questions from `input` on `output` until `input` ends, within the limits and by the choices of these options.
/// This is all that the helper's process does.
///
/// # Errors
/// A pipe broke, or the other side does not speak the protocol. Failures of the work itself are answers.
pub fn serve(options: SnapshotOptions, input: impl Read, output: impl Write) -> io::Result<()> {
    serve_in(Path::new(FOLDER), options, input, output)
}

/// The same with the helper's folder given.
///
/// # Errors
/// As [`serve`].
pub fn serve_in(
    folder: &Path,
    options: SnapshotOptions,
    input: impl Read,
    output: impl Write,
) -> io::Result<()> {
    let bench = Bench::open(folder, options, Arc::new(OsFiles)).map_err(io::Error::other)?;
    let mut helper = Helper {
        bench,
        input: io::BufReader::new(input),
        output: io::BufWriter::new(output),
        incoming: None,
        broken: None,
    };
    while let Some((tag, content)) = frame::read(&mut helper.input)? {
        match tag {
            Tag::File => helper.take_file(&frame::parse(&content)?)?,
            Tag::Request => helper.answer(frame::parse(&content)?)?,
            _ => return Err(frame::invalid("a file or a question")),
        }
    }
    Ok(())
}

/// One probe, on a runtime of its own: nothing else here waits for a network.
fn probe(
    addresses: &[IpAddr],
    port: u16,
    check: &HttpCheck,
    limit: Duration,
) -> Result<ProbeVerdict, PortError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| {
            PortError::new("probe a container", PortErrorKind::Failed, "no runtime")
                .with_source(source)
        })?;
    runtime.block_on(async {
        let asked = ask_addresses(addresses, port, check);
        match tokio::time::timeout(limit, asked).await {
            Ok(verdict) => verdict,
            Err(_) => Ok(ProbeVerdict::Fail(format!("no answer within {limit:?}"))),
        }
    })
}

struct Helper<I: Read, O: Write> {
    bench: Bench,
    input: io::BufReader<I>,
    output: io::BufWriter<O>,
    /// The snapshot whose files come in.
    incoming: Option<SnapshotId>,
    /// Why a file could not be kept; the answer to the question that needs it.
    broken: Option<VolumeError>,
}

impl<I: Read, O: Write> Helper<I, O> {
    fn take_file(&mut self, begins: &FileBegins) -> io::Result<()> {
        let result = self.keep_file(begins);
        match result {
            Ok(()) => Ok(()),
            // The rest of the file must still be taken off the pipe.
            Err(error) => {
                self.broken.get_or_insert(error);
                loop {
                    match frame::read(&mut self.input)? {
                        Some((Tag::Data, _)) => {}
                        Some((Tag::End, _)) => return Ok(()),
                        _ => return Err(frame::invalid("content of a file or its end")),
                    }
                }
            }
        }
    }

    fn keep_file(&mut self, begins: &FileBegins) -> Result<(), VolumeError> {
        if self.incoming != Some(begins.snapshot) {
            self.bench.begin(&begins.snapshot)?;
            self.incoming = Some(begins.snapshot);
        }
        let dir = self.bench.unfinished(&begins.snapshot);
        receive(&mut self.input, begins, &self.bench.files(), &dir).map(drop)
    }

    fn answer(&mut self, ask: Ask) -> io::Result<()> {
        let answered = match ask {
            Ask::Estimate { volumes } => {
                let estimate = self.bench.estimate(&volumes);
                return self.done(estimate.map(|estimate| estimate.needed_bytes));
            }
            Ask::PreCopy { request } => self.pre_copy(&request.into()),
            Ask::Take { request, have } => {
                let taken = self.take(&request.into(), &have);
                return self.done(taken);
            }
            Ask::Probe {
                addresses,
                port,
                check,
                timeout_millis,
            } => {
                let limit = Duration::from_millis(timeout_millis);
                return match probe(&addresses, port, &check, limit) {
                    Ok(verdict) => {
                        frame::write_json(&mut self.output, Tag::Done, &Verdict::from(verdict))
                    }
                    Err(error) => {
                        let failure = Failure::of(error.kind(), &error);
                        frame::write_json(&mut self.output, Tag::Failed, &failure)
                    }
                };
            }
            Ask::Process { container } => {
                return match super::scout::answer(&container) {
                    Ok(found) => frame::write_json(&mut self.output, Tag::Done, &found),
                    Err(error) => {
                        let failure = Failure::of(PortErrorKind::Failed, &error);
                        frame::write_json(&mut self.output, Tag::Failed, &failure)
                    }
                };
            }
            Ask::Restore {
                id,
                instance,
                volumes,
            } => self
                .unpack(&id, &instance)
                .and_then(|()| self.bench.restore(&id, &volumes)),
            Ask::Differs {
                id,
                instance,
                volumes,
            } => {
                let names = self
                    .unpack(&id, &instance)
                    .and_then(|()| self.bench.differs(&id, &volumes));
                return self.done(names);
            }
        };
        self.done(answered)
    }

    fn pre_copy(&mut self, request: &SnapshotRequest) -> Result<(), VolumeError> {
        self.bench.pre_copy(request)?;
        for (name, path) in self.bench.first_archives(&request.id)? {
            send(&mut self.output, request.id, &name, &path)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        request: &SnapshotRequest,
        have: &[String],
    ) -> Result<SnapshotInfo, VolumeError> {
        let info = self.bench.take(request)?;
        for (name, path) in self.bench.files_of(&request.id)? {
            if !have.contains(&name) {
                send(&mut self.output, request.id, &name, &path)?;
            }
        }
        Ok(info)
    }

    /// Makes the files that came in a snapshot of the helper's own.
    fn unpack(&mut self, id: &SnapshotId, instance: &InstanceId) -> Result<(), VolumeError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if self.incoming.take() == Some(*id) {
            self.bench.finish(id, instance)?;
        }
        Ok(())
    }

    fn done<T: Serialize>(&mut self, result: Result<T, VolumeError>) -> io::Result<()> {
        match result {
            Ok(value) => frame::write_json(&mut self.output, Tag::Done, &value),
            Err(error) => {
                let failure = Failure::of(error.kind(), &error);
                frame::write_json(&mut self.output, Tag::Failed, &failure)
            }
        }
    }
}
