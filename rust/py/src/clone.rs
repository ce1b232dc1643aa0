//! `clone_file`.

use std::fs::File;
use std::path::PathBuf;

use layermelt_core::blockio;
use layermelt_core::Error;
use pyo3::prelude::*;
use rustix::fs::{Mode, OFlags};

use crate::build::open_output;
use crate::error::{Area, Failure};
use crate::watch;

/// What a clone did.
#[pyclass(frozen, module = "layermelt._core")]
#[derive(Debug)]
pub(crate) struct CloneReport(blockio::CloneReport);

#[pymethods]
impl CloneReport {
    #[getter]
    const fn method(&self) -> &'static str {
        self.0.method.name()
    }

    #[getter]
    fn reasons(&self) -> Vec<String> {
        self.0.reasons.clone()
    }

    #[getter]
    const fn bytes_cloned(&self) -> u64 {
        self.0.bytes_cloned
    }

    #[getter]
    const fn bytes_copied(&self) -> u64 {
        self.0.bytes_copied
    }

    #[getter]
    const fn holes(&self) -> u64 {
        self.0.holes
    }
}

/// Clones the regular file `source` into the existing, empty file `output`;
/// `target` is its path for messages.
#[pyfunction]
#[pyo3(signature = (source, output, target, *, progress))]
pub(crate) fn clone_file(
    py: Python<'_>,
    source: PathBuf,
    output: PathBuf,
    target: PathBuf,
    progress: Option<Py<PyAny>>,
) -> PyResult<CloneReport> {
    let result = watch::run(py, progress.as_ref(), |control| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&source, flags, Mode::empty());
        let opened = File::from(opened.map_err(Error::io("open", &source))?);
        let into = open_output(&output, &target)?;
        blockio::clone_file(&opened, &source, &into, &target, control)
    })?;
    let report = result.map_err(|error| {
        let on_source = matches!(&error, Error::Io { path, .. } if *path == source);
        let area = if on_source { Area::Image } else { Area::Output };
        Failure { error, area }
    })?;
    Ok(CloneReport(report))
}
