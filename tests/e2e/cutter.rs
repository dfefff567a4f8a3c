//! Stands between the engine and a registry, and cuts connections.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Forwards to the registry until told otherwise.
pub(crate) struct Cutter {
    port: u16,
    rules: Arc<Rules>,
}

struct Rules {
    /// Bytes that may still come back, over all connections.
    limit: AtomicU64,
    /// A connection that asked for this blob is cut within the answer.
    blob: Mutex<Option<String>>,
    has_cut: AtomicBool,
    done: AtomicBool,
}

/// Bytes of the answer with the blob that come through.
const OF_THE_BLOB: usize = 100;

impl Cutter {
    pub(crate) fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("an address").port();
        let rules = Arc::new(Rules {
            limit: AtomicU64::new(u64::MAX),
            blob: Mutex::default(),
            has_cut: AtomicBool::new(false),
            done: AtomicBool::new(false),
        });
        let shared = Arc::clone(&rules);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.done.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(server) = TcpStream::connect(&to) else {
                    continue;
                };
                let rules = Arc::clone(&shared);
                thread::spawn(move || forward(client, server, &rules));
            }
        });
        Self { port, rules }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection once so many bytes have come back.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.rules.limit.store(bytes, Ordering::SeqCst);
    }

    /// Cuts every connection on which this blob is asked for, within the answer.
    pub(crate) fn cut_at(&self, digest: &str) {
        *self.rules.victim() = Some(digest.to_owned());
    }

    /// Whether a blob was asked for and cut.
    pub(crate) fn has_cut(&self) -> bool {
        self.rules.has_cut.load(Ordering::SeqCst)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.rules.done.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Rules {
    fn victim(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.blob.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_for_victim(&self, request: &[u8]) -> bool {
        let victim = self.victim();
        let Some(digest) = victim.as_deref() else {
            return false;
        };
        String::from_utf8_lossy(request).contains(&format!("/blobs/{digest}"))
    }

    /// How many of these bytes come through.
    fn allow(&self, count: usize, for_victim: bool) -> usize {
        if for_victim {
            self.has_cut.store(true, Ordering::SeqCst);
            return count.min(OF_THE_BLOB);
        }
        let count = count as u64;
        let left = self
            .limit
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(if left == u64::MAX {
                    left
                } else {
                    left.saturating_sub(count)
                })
            });
        let allowed = left.map_or(count, |left| left.min(count));
        usize::try_from(allowed).expect("no more than there is")
    }
}

fn forward(client: TcpStream, server: TcpStream, rules: &Arc<Rules>) {
    let for_victim = Arc::new(AtomicBool::new(false));
    if let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) {
        let (rules, for_victim) = (Arc::clone(rules), Arc::clone(&for_victim));
        thread::spawn(move || ask(from, to, &rules, &for_victim));
    }
    let (mut from, mut to) = (server, client);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let allowed = rules.allow(count, for_victim.load(Ordering::SeqCst));
        if to.write_all(&buffer[..allowed]).is_err() || allowed < count {
            break;
        }
    }
    // Both sides see the end at once.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn ask(mut from: TcpStream, mut to: TcpStream, rules: &Rules, for_victim: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        // A request of the engine's fits into one read.
        if rules.is_for_victim(&buffer[..count]) {
            for_victim.store(true, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
