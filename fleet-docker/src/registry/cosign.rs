//! Signatures by the program `cosign`: the port [`ImageVerifier`].
//!
//! The program verifies; this adapter decides what is asked of it and whether its answer is about the digest and the
//! repository that were asked for. Whatever is not a clear yes is a no. A copy of an image in another repository has
//! signatures that name the first one, and is refused.

use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::image::{ImageRef, PinnedImage};
use fleet_core::ports::{ImageVerifier, PortError, PortErrorKind};
use serde::Deserialize;
use tokio::process::Command;

const OP: &str = "verify the signature";
/// Most of the program's complaint that is shown.
const COMPLAINT_CHARS_MAX: usize = 300;

/// How `cosign` is run.
#[derive(Debug, Clone)]
pub struct CosignOptions {
    /// The program.
    pub program: PathBuf,
    /// Whose signatures count.
    pub trust: CosignTrust,
    /// Further arguments, for instance `--insecure-ignore-tlog` where a registry is cut off from the internet.
    pub args: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CosignTrust {
    /// Those made with the private half of this key: a file, or a reference that `cosign` knows.
    Key(String),
    /// Those made with a short-lived certificate for this identity.
    Keyless {
        /// The identity in the certificate.
        identity: String,
        /// Who vouched for it.
        issuer: String,
    },
}

/// Verifies signatures with `cosign`.
#[derive(Debug, Clone)]
pub struct CosignVerifier {
    options: CosignOptions,
}

#[derive(Deserialize)]
struct Verified {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

impl CosignVerifier {
    /// A verifier. Whether the program is there shows when it is first needed, or by [`CosignVerifier::probe`].
    #[must_use]
    pub fn new(options: CosignOptions) -> Self {
        Self { options }
    }

    /// Runs the program once without a task, for `doctor`.
    ///
    /// # Errors
    /// It is not there, or does not run.
    pub async fn probe(&self) -> Result<(), PortError> {
        let output = self.run(&["version".to_owned()]).await?;
        if output.status.success() {
            Ok(())
        } else {
            Err(failure(
                PortErrorKind::Failed,
                format!(
                    "{} version failed: {}",
                    self.options.program.display(),
                    complaint(&output)
                ),
            ))
        }
    }

    fn arguments(&self, image: &PinnedImage) -> Vec<String> {
        let mut arguments = vec!["verify".to_owned(), "--output=json".to_owned()];
        match &self.options.trust {
            CosignTrust::Key(key) => arguments.push(format!("--key={key}")),
            CosignTrust::Keyless { identity, issuer } => {
                arguments.push(format!("--certificate-identity={identity}"));
                arguments.push(format!("--certificate-oidc-issuer={issuer}"));
            }
        }
        arguments.extend(self.options.args.iter().cloned());
        arguments.push(image.by_digest());
        arguments
    }

    async fn run(&self, arguments: &[String]) -> Result<Output, PortError> {
        let program = &self.options.program;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // It needs the registry's credentials and its own settings, and none of fleet's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FLEET_") {
                command.env_remove(name);
            }
        }
        match tokio::time::timeout(self.options.timeout, command.output()).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(not_run(program, error)),
            Err(_) => Err(failure(
                PortErrorKind::Timeout,
                format!(
                    "{} took longer than {} s",
                    program.display(),
                    self.options.timeout.as_secs()
                ),
            )),
        }
    }
}

#[async_trait]
impl ImageVerifier for CosignVerifier {
    async fn verify(&self, image: &PinnedImage) -> Result<(), PortError> {
        let output = self.run(&self.arguments(image)).await?;
        if !output.status.success() {
            return Err(failure(
                PortErrorKind::Denied,
                format!(
                    "no signature of {} holds: {}",
                    image.by_digest(),
                    complaint(&output)
                ),
            ));
        }
        let verified: Vec<Verified> = serde_json::from_slice(&output.stdout).map_err(|error| {
            let program = self.options.program.display();
            let message = format!("expected a list of signatures as JSON from {program}");
            failure(PortErrorKind::Corrupt, message).with_source(error)
        })?;
        if verified.iter().any(|signature| is_about(signature, image)) {
            Ok(())
        } else {
            Err(failure(
                PortErrorKind::Denied,
                format!(
                    "expected a signature of {}, found {} of something else",
                    image.by_digest(),
                    verified.len()
                ),
            ))
        }
    }
}

fn is_about(signature: &Verified, image: &PinnedImage) -> bool {
    let repository = signature
        .critical
        .identity
        .docker_reference
        .parse::<ImageRef>();
    signature.critical.image.digest == image.digest.as_str()
        && repository.is_ok_and(|repository| repository.same_repository(&image.image))
}

fn failure(kind: PortErrorKind, message: String) -> PortError {
    PortError::new(OP, kind, message)
}

fn not_run(program: &std::path::Path, error: io::Error) -> PortError {
    let program = program.display();
    let (kind, message) = match error.kind() {
        io::ErrorKind::NotFound => (
            PortErrorKind::Unsupported,
            format!(
                "the program {program} is not there; install cosign, or configure no signatures"
            ),
        ),
        _ => (
            PortErrorKind::Failed,
            format!("the program {program} cannot be run"),
        ),
    };
    failure(kind, message).with_source(error)
}

/// The beginning of what the program complained about, on one line.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = line
        .chars()
        .filter(|c| !c.is_control())
        .take(COMPLAINT_CHARS_MAX);
    let shown: String = shown.collect();
    if shown.is_empty() {
        output.status.to_string()
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fleet_core::image::Digest;

    use super::*;

    /// A program that stands in for `cosign`. A process of its own writes it: a file that this process has open for
    /// writing while another test starts a program could not be run.
    fn stand_in(folder: &Path, script: &str) -> PathBuf {
        let (text, program) = (folder.join("text"), folder.join("cosign"));
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        let status = std::process::Command::new("install")
            .args(["-m", "755"])
            .args([&text, &program])
            .status()
            .unwrap();
        assert!(status.success());
        program
    }

    fn image() -> PinnedImage {
        "r.io/app:1"
            .parse::<ImageRef>()
            .unwrap()
            .pinned(Digest::of(b"1"))
    }

    fn signature(repository: &str, digest: &Digest) -> String {
        serde_json::json!({
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": digest.as_str()},
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string()
    }

    fn verifier(program: PathBuf) -> CosignVerifier {
        CosignVerifier::new(CosignOptions {
            program,
            trust: CosignTrust::Key("cosign.pub".to_owned()),
            args: vec!["--insecure-ignore-tlog=true".to_owned()],
            timeout: Duration::from_secs(20),
        })
    }

    async fn verify(script: &str) -> Result<(), PortErrorKind> {
        let folder = tempfile::tempdir().unwrap();
        let verifier = verifier(stand_in(folder.path(), script));
        verifier
            .verify(&image())
            .await
            .map_err(|error| error.kind())
    }

    fn says(signatures: &[String]) -> String {
        format!("cat <<'END'\n[{}]\nEND", signatures.join(","))
    }

    #[tokio::test]
    async fn a_signature_of_this_digest_in_this_repository_is_a_yes() {
        let (right, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let good = signature("r.io/app", &right);
        assert_eq!(verify(&says(std::slice::from_ref(&good))).await, Ok(()));
        assert_eq!(
            verify(&says(&[signature("r.io/app", &other), good])).await,
            Ok(())
        );
    }

    #[tokio::test]
    async fn whatever_is_not_a_clear_yes_is_a_no() {
        let (right, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let denied = Err(PortErrorKind::Denied);
        let good = says(&[signature("r.io/app", &right)]);
        for (script, expect) in [
            (format!("{good}\nexit 1"), denied),
            (says(&[signature("r.io/app", &other)]), denied),
            (says(&[signature("r.io/app-evil", &right)]), denied),
            (says(&[signature("evil.io/app", &right)]), denied),
            (says(&[signature("", &right)]), denied),
            (says(&[]), denied),
            ("true".to_owned(), Err(PortErrorKind::Corrupt)),
            ("echo OK".to_owned(), Err(PortErrorKind::Corrupt)),
            (
                "echo '{\"critical\":{}}'".to_owned(),
                Err(PortErrorKind::Corrupt),
            ),
            ("kill -9 $$".to_owned(), denied),
        ] {
            assert_eq!(verify(&script).await, expect, "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_says_what_to_do() {
        let absent = verifier("/nonexistent/cosign".into());
        let error = absent.verify(&image()).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Unsupported);
        assert!(error.to_string().contains("install cosign"), "{error}");
        assert!(absent.probe().await.is_err());
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut verifier = verifier(stand_in(folder.path(), "exec sleep 600"));
        verifier.options.timeout = Duration::from_millis(100);
        let error = verifier.verify(&image()).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Timeout);
    }

    #[tokio::test]
    async fn the_program_is_asked_for_the_digest_and_shown_no_secret_of_fleet() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "printf '%s\\n' \"$@\" >{0}/args; env >{0}/env",
            folder.path().display()
        );
        let by_key = verifier(stand_in(folder.path(), &script));
        by_key.verify(&image()).await.unwrap_err();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let digest = Digest::of(b"1");
        let expect = format!(
            "verify\n--output=json\n--key=cosign.pub\n--insecure-ignore-tlog=true\nr.io/app@{digest}\n"
        );
        assert_eq!(read("args"), expect);
        assert!(!read("env").lines().any(|line| line.starts_with("FLEET_")));

        let mut keyless = by_key;
        keyless.options.args.clear();
        keyless.options.trust = CosignTrust::Keyless {
            identity: "ci@example.com".to_owned(),
            issuer: "https://issuer.example".to_owned(),
        };
        keyless.verify(&image()).await.unwrap_err();
        let args = read("args");
        assert!(
            args.contains("--certificate-identity=ci@example.com\n"),
            "{args}"
        );
        assert!(
            args.contains("--certificate-oidc-issuer=https://issuer.example\n"),
            "{args}"
        );
    }
}
