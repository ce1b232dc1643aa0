//! Threads that share one piece of work.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;

/// Runs `work` in `threads` threads, this one among them, and returns what each
/// found. `work` is given a flag that says that another one failed: then the
/// rest is for nothing. The first error, in the order of the threads, is the
/// result; a panic goes on in the caller.
pub(crate) fn run<T: Send>(
    threads: usize,
    work: impl Fn(&AtomicBool) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let failed = AtomicBool::new(false);
    let guarded = || {
        let result = work(&failed);
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        result
    };
    let mut results = Vec::with_capacity(threads);
    std::thread::scope(|scope| {
        // One that cannot be started leaves its share to the others.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| {
                std::thread::Builder::new()
                    .spawn_scoped(scope, guarded)
                    .ok()
            })
            .collect();
        results.push(guarded());
        for other in others {
            let result = other.join();
            results.push(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    results.into_iter().collect()
}
