//! Stands between fleet and the engine, and spoils one call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// How a call is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// The engine answers 500 and does nothing.
    Fail,
    /// The engine does it, and the answer is lost.
    LoseReply,
    /// The engine is never asked, and the connection breaks.
    Break,
    /// The engine does it, a second late.
    Delay,
}

/// A proxy on a unix socket of its own. Once armed, calls are counted in the order in which they come, from 1.
pub(crate) struct Proxy {
    socket: PathBuf,
    armed: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

const ENGINE: &str = "/var/run/docker.sock";
/// How late a delayed call is.
const LATE: Duration = Duration::from_secs(1);

impl Proxy {
    /// A proxy in front of this machine's engine that spoils the call of this number; 0 spoils none.
    pub(crate) fn start(dir: &Path, spoiled: u64, spoil: Spoil) -> Self {
        let socket = dir.join(format!("{spoiled}-{spoil:?}.sock"));
        let listener = UnixListener::bind(&socket).expect("a socket");
        let calls = Arc::new(AtomicU64::new(0));
        let armed = Arc::new(AtomicBool::new(false));
        let (counter, counting) = (calls.clone(), armed.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (counter, counting) = (counter.clone(), counting.load(Ordering::SeqCst));
                tokio::spawn(async move {
                    // A connection that breaks is what the test is about.
                    drop(serve(client, counting.then_some(&*counter), spoiled, spoil).await);
                });
            }
        });
        Self {
            socket,
            armed,
            calls,
            task,
        }
    }

    /// Counts from now on.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection carries one call: the request says so, and the engine closes after its answer.
async fn serve(
    mut client: UnixStream,
    calls: Option<&AtomicU64>,
    spoiled: u64,
    spoil: Spoil,
) -> std::io::Result<()> {
    let Some((head, rest)) = read_head(&mut client).await? else {
        return Ok(());
    };
    // The event stream lasts as long as the update; it is no call of a step.
    let is_step = !head.contains("/events?") && !head.contains("/events ");
    let number = calls
        .filter(|_| is_step)
        .map_or(0, |calls| calls.fetch_add(1, Ordering::SeqCst) + 1);
    let hit = number != 0 && number == spoiled;
    if hit && spoil == Spoil::Break {
        return Ok(());
    }
    if hit && spoil == Spoil::Fail {
        let body = r#"{"message":"spoiled by the test"}"#;
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        return client.write_all(answer.as_bytes()).await;
    }
    if hit && spoil == Spoil::Delay {
        // Nothing ever comes; only the bound ends it.
        drop(tokio::time::timeout(LATE, std::future::pending::<()>()).await);
    }
    let mut engine = UnixStream::connect(ENGINE).await?;
    let one_call = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    engine.write_all(one_call.as_bytes()).await?;
    engine.write_all(&rest).await?;
    if hit && spoil == Spoil::LoseReply {
        return swallow(&mut client, &mut engine).await;
    }
    tokio::io::copy_bidirectional(&mut client, &mut engine)
        .await
        .map(|_| ())
}

/// Hands the request on to its end, waits for the engine's whole answer, and keeps it.
async fn swallow(client: &mut UnixStream, engine: &mut UnixStream) -> std::io::Result<()> {
    let (mut from_client, _) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let mut answer = Vec::new();
    tokio::select! {
        _ = from_engine.read_to_end(&mut answer) => {}
        // The client keeps its side open while it waits, so this ends only if it gives up.
        _ = tokio::io::copy(&mut from_client, &mut to_engine) => {}
    }
    Ok(())
}

async fn read_head(client: &mut UnixStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), rest)));
        }
        match client.read(&mut chunk).await? {
            0 => return Ok(None),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}
