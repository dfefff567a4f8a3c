//! A client that writes without pause, and remembers what was answered.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stage::Stage;

/// Pause between two writes.
const PACE: Duration = Duration::from_millis(10);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a tenant's client saw.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Numbers that were answered, with the version that answered.
    answered: Vec<(u64, String)>,
    last: Option<Instant>,
    longest_gap: Duration,
}

/// A log that its writer and the story share.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the gap so far: a new phase begins.
    pub(super) fn begin_phase(&self) {
        self.lock().longest_gap = Duration::ZERO;
    }

    /// Longest time between two answers of a good version in this phase, the one that lasts included.
    pub(super) fn longest_gap(&self) -> Duration {
        let log = self.lock();
        let lasting = log.last.map_or(Duration::ZERO, |last| last.elapsed());
        log.longest_gap.max(lasting).saturating_sub(PACE)
    }

    /// Numbers that good versions answered, and how many the bad one did.
    pub(super) fn answered(&self, bad: &str) -> (Vec<u64>, usize) {
        let log = self.lock();
        let good = log.answered.iter().filter(|(_, version)| version != bad);
        let good: Vec<_> = good.map(|(number, _)| *number).collect();
        let lost = log.answered.len() - good.len();
        (good, lost)
    }

    fn note(&self, number: u64, version: String, bad: &str) {
        let mut log = self.lock();
        if version != bad {
            let now = Instant::now();
            if let Some(last) = log.last.replace(now) {
                log.longest_gap = log.longest_gap.max(now - last);
            }
        }
        log.answered.push((number, version));
    }
}

/// Writes numbers for ever. A number is used once, whether it was answered or not.
pub(super) async fn write(stage: &Stage, tenant: &str, bad: &str, log: SharedLog) {
    let mut address = None;
    for number in 0_u64.. {
        if address.is_none() {
            address = stage.address(tenant).await;
        }
        let answer = match address {
            Some(to) => get(to, &format!("/put?{number}")).await.ok(),
            None => None,
        };
        match answer {
            Some(version) => log.note(number, version, bad),
            None => address = None,
        }
        tokio::time::sleep(PACE).await;
    }
}

/// The body of a 200 answer.
pub(super) async fn get(address: SocketAddr, target: &str) -> io::Result<String> {
    let answer = tokio::time::timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    });
    let answer = answer.await.map_err(|_| io::ErrorKind::TimedOut)??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other("no good answer")),
    }
}
