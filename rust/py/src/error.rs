//! The one way from the core's errors to Python's classes.

use layermelt_core::error::GrowFault;
use layermelt_core::Error;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// What a path is to the work at hand: it decides which class a failed system
/// call on it becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Area {
    /// A layer's file.
    Layer,
    /// A file to be put into the image.
    File,
    /// The image being written.
    Output,
    /// The image being looked at.
    Image,
}

impl Area {
    const fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::File => "file",
            Self::Output => "output",
            Self::Image => "image",
        }
    }
}

/// An error, and what its path is.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) area: Area,
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        // A failure to make the exception is an exception as well.
        Python::attach(|py| make(py, &failure).unwrap_or_else(|error| error))
    }
}

/// A fault of layermelt itself: a panic of the core.
pub(crate) fn internal(py: Python<'_>, payload: &(dyn std::any::Any + Send)) -> PyErr {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let message = format!("a fault of layermelt itself: {text}; please report it");
    raise(py, "InternalError", message, PyDict::new(py)).unwrap_or_else(|error| error)
}

/// The system has no thread for the work.
pub(crate) fn no_thread(py: Python<'_>, error: &std::io::Error) -> PyErr {
    let message = format!(
        "cannot start a thread: {error}; raise the limit of processes (ulimit -u, or pids.max of the container)"
    );
    raise(py, "LayermeltError", message, PyDict::new(py)).unwrap_or_else(|error| error)
}

fn make(py: Python<'_>, failure: &Failure) -> PyResult<PyErr> {
    let message = failure.error.to_string();
    let details = PyDict::new(py);
    let class = match &failure.error {
        Error::Io { path, source, .. } | Error::HalfGrown { path, source, .. } => {
            let arguments = (
                failure.area.name(),
                message,
                path.as_os_str(),
                source.raw_os_error(),
            );
            let made = errors(py)?.getattr("from_os_error")?.call1(arguments)?;
            return Ok(PyErr::from_value(made));
        }
        Error::Unreadable { paths, .. } => {
            let named: Vec<_> = paths.iter().map(|one| one.path.as_os_str()).collect();
            details.set_item("paths", PyTuple::new(py, named)?)?;
            if let Some(first) = paths.first() {
                details.set_item("path", first.path.as_os_str())?;
                details.set_item("errno", first.source.raw_os_error())?;
            }
            "UnreadableError"
        }
        Error::CorruptLayer { path, .. } | Error::MountedOver { path } => {
            details.set_item("path", path.as_os_str())?;
            "CorruptLayerError"
        }
        Error::CorruptImage { path, .. } => {
            details.set_item("path", path.as_os_str())?;
            "CorruptImageError"
        }
        Error::LayerChanged { path, .. } => {
            details.set_item("path", path.as_os_str())?;
            "LayerChangedError"
        }
        Error::Unrepresentable { path, .. } => {
            details.set_item("path", path)?;
            "UnrepresentableError"
        }
        Error::Injection { path, .. } => {
            details.set_item("path", path)?;
            "InjectionError"
        }
        Error::Agent { path, .. } => {
            details.set_item("path", path)?;
            "AgentError"
        }
        Error::TooSmall { given, needed } => {
            details.set_item("given", given)?;
            details.set_item("needed", needed)?;
            "TooSmallError"
        }
        Error::NotGrown { path, kind, .. } => {
            details.set_item("path", path.as_os_str())?;
            match kind {
                GrowFault::Unclean => "UncleanImageError",
                GrowFault::Unsound => "UnsoundImageError",
                GrowFault::Unsupported => "UnsupportedImageError",
            }
        }
        Error::InvalidOption { .. } => "InvalidOptionError",
        // Asked for by a signal or a callback, whose own exception is raised.
        Error::Interrupted => return Ok(pyo3::exceptions::PyKeyboardInterrupt::new_err(())),
        _ => "InternalError",
    };
    raise(py, class, message, details)
}

fn raise(
    py: Python<'_>,
    class: &str,
    message: String,
    details: Bound<'_, PyDict>,
) -> PyResult<PyErr> {
    let made = errors(py)?
        .getattr(class)?
        .call((message,), Some(&details))?;
    Ok(PyErr::from_value(made))
}

fn errors(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("layermelt.errors")
}
