//! Something between fleet and the engine that fails one connection, and an engine behind TCP.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Where the engine of this machine listens.
const ENGINE: &str = "/var/run/docker.sock";

/// What happens to the connection whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mischief {
    /// It is closed before anything reaches the engine.
    Refuse,
    /// The engine gets the request; its answer is lost.
    LoseAnswer,
}

/// A proxy in front of the engine. One call of fleet's is one connection.
pub(crate) struct Proxy {
    folder: tempfile::TempDir,
    seen: Arc<AtomicUsize>,
}

impl Proxy {
    /// A proxy that does `mischief` to the connection number `turn` (from 0), none if there never is such a one.
    pub(crate) fn new(turn: usize, mischief: Mischief) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("engine.sock")).expect("bound");
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        // The thread ends with the test process; it holds nothing but its socket.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let mischief = (number == turn).then_some(mischief);
                thread::spawn(move || serve(client, mischief));
            }
        });
        Self { folder, seen }
    }

    /// Its address.
    pub(crate) fn host(&self) -> String {
        let path: PathBuf = self.folder.path().join("engine.sock");
        format!("unix://{}", path.display())
    }

    /// Connections so far.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

fn serve(client: UnixStream, mischief: Option<Mischief>) {
    if mischief == Some(Mischief::Refuse) {
        return;
    }
    let engine = UnixStream::connect(ENGINE).expect("the engine is there");
    if mischief.is_none() {
        join(client, engine);
        return;
    }
    // The answer's first byte says that the engine has done what it was asked to do.
    let mut from = client.try_clone().expect("cloned");
    let mut to = engine.try_clone().expect("cloned");
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let mut first = [0];
    let mut engine = engine;
    let answered = engine.read(&mut first).expect("readable");
    assert_eq!(answered, 1, "the engine answers");
    // Both halves are shut, so that fleet sees the end at once.
    client.shutdown(Shutdown::Both).expect("shut");
}

fn join(client: UnixStream, engine: UnixStream) {
    let mut from = client.try_clone().expect("cloned");
    let mut to = engine.try_clone().expect("cloned");
    thread::spawn(move || {
        // Either side may end first; what the other then has to say goes nowhere.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (engine, client);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// The engine behind TCP, for one test: gives `tcp://127.0.0.1:PORT`.
pub(crate) fn engine_over_tcp() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut engine = UnixStream::connect(ENGINE).expect("the engine is there");
            let mut from = client.try_clone().expect("cloned");
            let mut to = engine.try_clone().expect("cloned");
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = std::io::copy(&mut engine, &mut client);
                let _ = client.flush();
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    format!("tcp://{address}")
}
