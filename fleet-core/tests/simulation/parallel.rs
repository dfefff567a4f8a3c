//! Many stories on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does something for each item, on as many threads as the machine has cores. Stops at the first panic.
pub(crate) fn each<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let worker = || {
        while failed.lock().expect("no panic holds it").is_none() {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(item)));
            if let Err(panic) = done {
                *failed.lock().expect("no panic holds it") = Some(panic);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(worker);
        }
    });
    if let Some(panic) = failed.into_inner().expect("no panic holds it") {
        std::panic::resume_unwind(panic);
    }
}
