//! Commands inside a container, and its log: bounded in time and size.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::LogsOptionsBuilder;
use fleet_core::ids::ContainerId;
use fleet_core::ports::{ExecOutcome, PortError, PortErrorKind};
use futures::{Stream, StreamExt};

use super::{CALL_LIMIT, DockerEngine, limited};
use crate::error;

/// Most bytes of output that are kept, of a command or of a log: the last ones.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

impl DockerEngine {
    pub(super) async fn log_end(&self, id: &ContainerId, lines: u32) -> Result<String, PortError> {
        let op = "read a container's log";
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(false)
            .tail(&lines.to_string())
            .build();
        let log = self.docker.logs(id.as_str(), Some(options));
        tokio::time::timeout(CALL_LIMIT, collect(op, log))
            .await
            .map_err(|_| error::timeout(op))?
    }

    pub(super) async fn run_inside(
        &self,
        id: &ContainerId,
        argv: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, PortError> {
        let op = "run a command in a container";
        let options = CreateExecOptions {
            cmd: Some(argv.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = limited(
            op,
            CALL_LIMIT,
            self.docker.create_exec(id.as_str(), options),
        )
        .await?;
        let started = self.docker.start_exec(&exec.id, None::<StartExecOptions>);
        let output = match limited(op, CALL_LIMIT, started).await? {
            StartExecResults::Attached { output, input: _ } => {
                tokio::time::timeout(limit, collect(op, output))
                    .await
                    .map_err(|_| {
                        let message = format!("it did not end within {limit:?}; it may still run");
                        PortError::new(op, PortErrorKind::Timeout, message)
                    })??
            }
            StartExecResults::Detached => String::new(),
        };
        let ended = limited(op, CALL_LIMIT, self.docker.inspect_exec(&exec.id)).await?;
        match ended.exit_code {
            // 126 and 127 with the engine's own words: there is no such program, or it cannot be run.
            Some(126 | 127) if output.contains("OCI runtime exec failed") => Err(PortError::new(
                op,
                PortErrorKind::NotFound,
                output.trim().to_owned(),
            )),
            Some(exit_code) => Ok(ExecOutcome { exit_code, output }),
            None => Err(PortError::new(
                op,
                PortErrorKind::Failed,
                "its end was not reported",
            )),
        }
    }
}

/// The end of a stream of output, at most [`OUTPUT_BYTES_MAX`] bytes of it.
async fn collect(
    op: &'static str,
    mut stream: impl Stream<Item = Result<bollard::container::LogOutput, bollard::errors::Error>>
    + Unpin,
) -> Result<String, PortError> {
    let mut kept: Vec<u8> = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|source| error::from_bollard(op, source))?;
        kept.extend_from_slice(&chunk.into_bytes());
        if kept.len() > 2 * OUTPUT_BYTES_MAX {
            kept.drain(..kept.len() - OUTPUT_BYTES_MAX);
        }
    }
    let from = kept.len().saturating_sub(OUTPUT_BYTES_MAX);
    Ok(String::from_utf8_lossy(&kept[from..]).into_owned())
}
