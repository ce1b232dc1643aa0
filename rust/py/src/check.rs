//! `check_image` and `has_ext4_magic`.

use std::path::PathBuf;

use layermelt_core::ext4::check::{self, Depth, Journal};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::error::{Area, Failure};
use crate::watch;

/// Something that is wrong with an image.
#[pyclass(frozen, get_all, module = "layermelt._core")]
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// What kind of fault it is, for machines.
    code: &'static str,
    /// A sentence with the place and the numbers.
    text: String,
}

/// What an image says about itself, and what is wrong with it.
#[pyclass(frozen, module = "layermelt._core")]
#[derive(Debug)]
pub(crate) struct ImageReport(check::ImageReport);

#[pymethods]
impl ImageReport {
    #[getter]
    const fn size(&self) -> u64 {
        self.0.size
    }

    #[getter]
    fn problems<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let problems = self.0.problems.iter().map(|problem| Problem {
            code: problem.code,
            text: problem.text.clone(),
        });
        PyTuple::new(py, problems.collect::<Vec<_>>())
    }

    #[getter]
    const fn more_problems(&self) -> u64 {
        self.0.more_problems
    }

    #[getter]
    fn notes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.notes)
    }

    #[getter]
    fn uuid<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.uuid)
    }

    #[getter]
    fn label<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.label)
    }

    #[getter]
    const fn block_size(&self) -> u32 {
        self.0.block_size
    }

    #[getter]
    const fn blocks(&self) -> u64 {
        self.0.blocks
    }

    #[getter]
    const fn free_blocks(&self) -> u64 {
        self.0.free_blocks
    }

    #[getter]
    const fn inodes(&self) -> u32 {
        self.0.inodes
    }

    #[getter]
    const fn free_inodes(&self) -> u32 {
        self.0.free_inodes
    }

    #[getter]
    const fn inode_size(&self) -> u16 {
        self.0.inode_size
    }

    #[getter]
    const fn groups(&self) -> u32 {
        self.0.groups
    }

    #[getter]
    fn features<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.features)
    }

    /// "none", "inode N" or "device" and a UUID.
    #[getter]
    fn journal(&self) -> String {
        match self.0.journal {
            Journal::None => "none".into(),
            Journal::Internal(inode) => format!("inode {inode}"),
            Journal::External(uuid) => {
                let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("device {hex}")
            }
        }
    }

    #[getter]
    fn state(&self) -> &str {
        &self.0.state
    }
}

/// Whether the path is a file with ext4's magic number.
#[pyfunction]
#[pyo3(signature = (path, /))]
pub(crate) fn has_ext4_magic(py: Python<'_>, path: PathBuf) -> bool {
    py.detach(|| check::has_magic(&path))
}

/// Looks at an image.
#[pyfunction]
#[pyo3(signature = (path, /, *, deep=false, progress=None))]
pub(crate) fn check_image(
    py: Python<'_>,
    path: PathBuf,
    deep: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<ImageReport> {
    let depth = if deep { Depth::All } else { Depth::Surface };
    let report = watch::run(py, progress.as_ref(), |control| {
        check::check_image(&path, depth, control)
    })?;
    Ok(ImageReport(report.map_err(|error| Failure {
        error,
        area: Area::Image,
    })?))
}
