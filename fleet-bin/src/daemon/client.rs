//! Asking a daemon.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use reqwest::header::{ACCEPT, HeaderValue};
use serde_json::Value;

use super::SOCKET;
use super::routes::take_parameters;
use super::wire::{ACTOR, FRAMES, Frame};
use crate::answer::Answer;
use crate::assemble::Context;
use crate::call::{Call, Method, Voice as _};
use crate::datadir::DataDir;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// A daemon that is there.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    path: PathBuf,
}

impl Client {
    /// The daemon of a data directory, none if none listens there. A socket that a dead one left is none.
    ///
    /// # Errors
    /// There is a socket that may not be used.
    pub(crate) fn of(dir: &DataDir) -> Outcome<Option<Self>> {
        let path = dir.join(SOCKET);
        match UnixStream::connect(&path) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                let message = format!("the daemon's socket {} cannot be used", path.display());
                return Err(error).or_exit(Exit::Failed, message);
            }
        }
        let http = reqwest::Client::builder()
            .unix_socket(path.clone())
            .no_proxy()
            .build()
            .or_exit(Exit::Failed, "the daemon cannot be asked")?;
        Ok(Some(Self { http, path }))
    }

    /// Has it carry out a call, and says what it says meanwhile.
    ///
    /// # Errors
    /// What it failed with there; the daemon went away before it answered.
    pub(crate) async fn ask<C: Call>(&self, call: &C, context: &Context) -> Outcome<Answer> {
        let mut body = serde_json::to_value(call)?;
        let path = take_parameters(C::ROUTE.path, &mut body)?;
        let method = match C::ROUTE.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let actor = HeaderValue::from_bytes(context.actor().as_bytes())
            .or_exit(Exit::Failed, "the user's name cannot be sent")?;
        let asked = self
            .http
            .request(method, format!("http://fleet{path}"))
            .header(ACCEPT, FRAMES)
            .header(ACTOR, actor)
            .json(&body)
            .send()
            .await;
        let mut answer = asked.or_exit(
            Exit::Failed,
            format!("the daemon at {} cannot be asked", self.path.display()),
        )?;
        if !answer.status().is_success() {
            let body = answer.bytes().await.unwrap_or_default();
            return match frame(&body)? {
                Frame::Problem(problem) => Err(problem.into_failure()),
                _ => Err(Failure::new(
                    Exit::Failed,
                    "the daemon's answer has no sense",
                )),
            };
        }
        let sink = context.ui.sink("daemon");
        let mut lines = Lines::default();
        while let Ok(Some(bytes)) = answer.chunk().await {
            lines.add(&bytes);
            while let Some(line) = lines.next() {
                match frame(&line)? {
                    Frame::Told(text) => context.ui.tell(&text),
                    Frame::Progress(said) => sink.show(said),
                    Frame::Answer(answer) => return Ok(*answer),
                    Frame::Problem(problem) => return Err(problem.into_failure()),
                }
            }
        }
        Err(Unanswered("the daemon went away before it answered".to_owned()).into())
    }
}

/// Nobody can say how it ended: the daemon is gone. What had begun is in the journal, and its next start goes on with it.
#[derive(Debug)]
pub(crate) struct Unanswered(pub(super) String);

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(why) = self;
        write!(
            f,
            "{why}; what had begun is in the journal, and its next start goes on with it"
        )
    }
}

impl std::error::Error for Unanswered {}

/// A frame, or a problem that is the whole answer.
fn frame(line: &[u8]) -> Outcome<Frame> {
    let value: Value =
        serde_json::from_slice(line).or_exit(Exit::Failed, "the daemon's answer cannot be read")?;
    let read = match value.get("code") {
        Some(_) => serde_json::from_value(value).map(Frame::Problem),
        None => serde_json::from_value(value),
    };
    read.or_exit(
        Exit::Failed,
        "the daemon's answer cannot be read: is it of another version?",
    )
}

/// Bytes as lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.0.drain(..=end).collect();
        line.pop();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_wherever_the_bytes_are_cut() {
        let mut lines = Lines::default();
        lines.add(b"{\"a\":");
        assert_eq!(lines.next(), None);
        lines.add(b"1}\n{}\n{");
        assert_eq!(lines.next(), Some(b"{\"a\":1}".to_vec()));
        assert_eq!(lines.next(), Some(b"{}".to_vec()));
        assert_eq!(lines.next(), None);
    }
}
