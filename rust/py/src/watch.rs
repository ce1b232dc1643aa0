//! Runs the core's work in a thread and watches it from Python's.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use layermelt_core::control::Control;
use layermelt_core::Error;
use pyo3::prelude::*;

use crate::error::{internal, no_thread};

/// How long Ctrl-C may go unnoticed, and how often progress is told.
const POLL: Duration = Duration::from_millis(50);

/// Runs `work` in a thread of its own, without the GIL, and meanwhile lets
/// Python handle signals and calls `progress(phase, done, total)`.
///
/// Signal handlers and callbacks are Python code and may raise (Ctrl-C does):
/// then the work is told to stop, its end is waited for, so that nothing writes
/// any more when the caller cleans up, and that exception is the result.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&Control) -> Result<T, Error> + Send,
) -> PyResult<Result<T, Error>> {
    let control = Control::default();
    let ended = Ended::default();
    std::thread::scope(|scope| {
        let watched = || {
            // Dropped when the work returns and when it panics.
            let _guard = Guard(&ended);
            work(&control)
        };
        let worker = std::thread::Builder::new()
            .spawn_scoped(scope, watched)
            .map_err(|error| no_thread(py, &error))?;
        let mut raised = None;
        while !py.detach(|| ended.wait(POLL)) {
            if raised.is_none() {
                if let Err(error) = poll(py, progress, &control) {
                    control.stop();
                    raised = Some(error);
                }
            }
        }
        let result = py.detach(|| worker.join());
        match (raised, result) {
            (Some(error), _) => Err(error),
            (None, Ok(result)) => Ok(result),
            (None, Err(payload)) => Err(internal(py, payload.as_ref())),
        }
    })
}

fn poll(py: Python<'_>, progress: Option<&Py<PyAny>>, control: &Control) -> PyResult<()> {
    py.check_signals()?;
    if let Some(progress) = progress {
        let (phase, done, total) = control.progress();
        progress.call1(py, (phase.name(), done, total))?;
    }
    Ok(())
}

/// Whether the worker has ended.
#[derive(Default)]
struct Ended {
    flag: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    /// Waits until it has, or for that long.
    fn wait(&self, timeout: Duration) -> bool {
        let flag = self.flag.lock().unwrap_or_else(PoisonError::into_inner);
        let (flag, _) = self
            .changed
            .wait_timeout_while(flag, timeout, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        *flag
    }
}

struct Guard<'a>(&'a Ended);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        *self.0.flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
