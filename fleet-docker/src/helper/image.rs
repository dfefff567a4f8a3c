//! The image of helpers: fleet's own executable and nothing else, named by its hash.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet_core::model::labels::KIND;
use fleet_core::ports::{PortError, PortErrorKind};
use tokio::sync::OnceCell;

use super::container::{HELPER_KIND, OP, PROGRAM};
use crate::engine::DockerEngine;
use crate::volume::exchange::Sha256Hash;

/// Repository of the helper's image.
const REPOSITORY: &str = "fleet-helper";

/// The image, made when it is first needed and again when somebody pruned it.
#[derive(Debug, Clone)]
pub(super) struct HelperImage {
    executable: PathBuf,
    program: Arc<OnceCell<Program>>,
}

/// The executable as it was read.
#[derive(Debug)]
struct Program {
    name: String,
    archive: bytes::Bytes,
}

impl HelperImage {
    /// The image of an executable.
    pub(super) fn of(executable: PathBuf) -> Self {
        Self {
            executable,
            program: Arc::default(),
        }
    }

    /// Its name on an engine that has it; images of other versions of fleet go where nobody uses them.
    pub(super) async fn on(&self, engine: &DockerEngine) -> Result<&str, PortError> {
        let program = self.program().await?;
        if !engine.has_image(&program.name).await? {
            let label = format!("LABEL {KIND}={HELPER_KIND}");
            engine
                .import_image(&program.name, program.archive.clone(), &label)
                .await?;
            self.sweep(engine, &program.name).await;
        }
        Ok(&program.name)
    }

    async fn program(&self) -> Result<&Program, PortError> {
        let read = || async {
            let path = self.executable.clone();
            tokio::task::spawn_blocking(move || Program::read(&path))
                .await
                .map_err(|join| {
                    failed("the thread that read the executable ended").with_source(join)
                })?
        };
        self.program.get_or_try_init(read).await
    }

    /// An image that stays is only a waste of space.
    async fn sweep(&self, engine: &DockerEngine, current: &str) {
        let label = format!("{KIND}={HELPER_KIND}");
        let swept = engine.remove_labelled_images(&label, REPOSITORY, current);
        if let Err(error) = swept.await {
            tracing::info!(error = %error, "images of former helpers could not be removed");
        }
    }
}

impl Program {
    fn read(path: &Path) -> Result<Self, PortError> {
        let program = read_static(path)?;
        let hash = Sha256Hash::of(&program).to_string();
        let archive = archive(&program)
            .map_err(|source| failed("its program cannot be packed").with_source(source))?;
        Ok(Self {
            name: format!("{REPOSITORY}:{}", &hash[..16]),
            archive: archive.into(),
        })
    }
}

/// The executable, if it can run in an image that holds nothing else.
fn read_static(path: &Path) -> Result<Vec<u8>, PortError> {
    let program = std::fs::read(path).map_err(|source| {
        failed(format!("the executable {} cannot be read", path.display())).with_source(source)
    })?;
    if is_static(&program) {
        return Ok(program);
    }
    let message = format!(
        "{} needs shared libraries, so no helper can be made from it; use the static build",
        path.display()
    );
    Err(PortError::new(OP, PortErrorKind::Unsupported, message))
}

/// Whether a 64-bit little-endian ELF file names no interpreter.
fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(len)?)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let headers = || -> Option<bool> {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for index in 0..count {
            let at = table.checked_add(index.checked_mul(size)?)?;
            if number(at, 4)? == INTERPRETER as usize {
                return Some(false);
            }
        }
        Some(true)
    };
    program.starts_with(b"\x7fELF\x02\x01") && headers().unwrap_or(false)
}

fn failed(message: impl Into<String>) -> PortError {
    PortError::new(OP, PortErrorKind::Failed, message)
}

fn archive(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, PROGRAM.trim_start_matches('/'), program)?;
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_without_an_interpreter_are_static() {
        let guard = crate::guard::program("amd64").expect("a program");
        assert!(is_static(&guard));
        let shell = std::fs::read("/bin/sh").expect("a shell");
        assert!(!is_static(&shell));
        assert!(!is_static(b"#!/bin/sh"));
        assert!(!is_static(&guard[..60]));
    }
}
