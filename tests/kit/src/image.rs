//! Images FROM scratch, by the engine's import call.

use std::fs;

use crate::app::app_binary;
use crate::docker::docker_with_input;

/// An image to be made: the test program and what the image says about it.
///
/// The program is `/app`, the working folder `/`, port 8080 is exposed. No volume is declared.
#[derive(Debug, Clone)]
pub struct Image {
    changes: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// A program that reports `version` and behaves as `mode` says (see `fleet-bin/src/demo/app.rs`; empty: well).
    #[must_use]
    pub fn new(version: &str, mode: &str) -> Self {
        let image = Self {
            changes: Vec::new(),
            files: Vec::new(),
        };
        image
            .change("ENTRYPOINT [\"/app\"]")
            .change("EXPOSE 8080")
            .env("APP_VERSION", version)
            .env("APP_MODE", mode)
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.change(&format!("ENV {name}=\"{value}\""))
    }

    /// Adds a label.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> Self {
        self.change(&format!("LABEL {name}='{value}'"))
    }

    /// Adds an instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR.
    #[must_use]
    pub fn change(mut self, instruction: &str) -> Self {
        self.changes.push(instruction.to_owned());
        self
    }

    /// Adds a file, mode 0644.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// Imports it under a reference and gives its id.
    pub(crate) fn import(&self, reference: &str) -> String {
        let mut args = vec!["import"];
        for change in &self.changes {
            args.extend(["--change", change]);
        }
        args.extend(["-", reference]);
        docker_with_input(&args, &self.archive())
    }

    fn archive(&self) -> Vec<u8> {
        let program = fs::read(app_binary()).expect("the test program can be read");
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, "app", 0o755, &program);
        for (path, content) in &self.files {
            append(&mut archive, path.trim_start_matches('/'), 0o644, content);
        }
        archive
            .into_inner()
            .expect("writing into memory cannot fail")
    }
}

pub(crate) fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive
        .append_data(&mut header, path, content)
        .expect("writing into memory cannot fail");
}
