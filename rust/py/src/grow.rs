//! `grow_file`.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use layermelt_core::ext4::grow::{self, Event, Numbers, Options, Outcome, Target};
use layermelt_core::Error;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::fs::{Mode, OFlags};

use crate::error::{Area, Failure};
use crate::watch;

/// What growing did.
#[pyclass(frozen, module = "layermelt._core")]
#[derive(Debug)]
pub(crate) struct GrowReport(grow::GrowReport);

/// (blocks, free blocks, groups, inodes, free inodes).
type Counts = (u64, u64, u32, u32, u32);
/// (what, byte or length, bytes).
type Recorded<'py> = (&'static str, u64, Bound<'py, PyBytes>);

fn counts(numbers: &Numbers) -> Counts {
    let Numbers {
        blocks,
        free_blocks,
        groups,
        inodes,
        free_inodes,
    } = *numbers;
    (blocks, free_blocks, groups, inodes, free_inodes)
}

#[pymethods]
impl GrowReport {
    #[getter]
    const fn block_size(&self) -> u32 {
        self.0.block_size
    }

    #[getter(old)]
    fn before(&self) -> Counts {
        counts(&self.0.old)
    }

    #[getter(new)]
    fn after(&self) -> Counts {
        counts(&self.0.new)
    }

    #[getter]
    const fn file_bytes(&self) -> u64 {
        self.0.file_bytes
    }

    #[getter]
    const fn written_bytes(&self) -> u64 {
        self.0.written
    }

    #[getter]
    const fn meta_bg(&self) -> bool {
        self.0.meta_bg
    }

    #[getter]
    fn events<'py>(&self, py: Python<'py>) -> Vec<Recorded<'py>> {
        let tell = |event: &Event| match event {
            Event::Length(length) => ("length", *length, PyBytes::new(py, &[])),
            Event::Write(at, bytes) => ("write", *at, PyBytes::new(py, bytes)),
            Event::Sync => ("sync", 0, PyBytes::new(py, &[])),
        };
        self.0.events.iter().map(tell).collect()
    }
}

/// Grows the image at `path`, which must be the file with these device and
/// inode numbers: the report, or why a copy must be grown.
#[pyfunction]
#[pyo3(signature = (path, identity, target, size, *, atomic, sync, record, progress))]
#[expect(clippy::too_many_arguments, reason = "named in Python")]
pub(crate) fn grow_file(
    py: Python<'_>,
    path: PathBuf,
    identity: (u64, u64),
    target: &str,
    size: u64,
    atomic: bool,
    sync: bool,
    record: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Option<GrowReport>, Option<String>)> {
    let target = match target {
        "bytes" => Target::Bytes(size),
        "more" => Target::More(size),
        "whole" => Target::Whole,
        _ => return Err(PyValueError::new_err("no such target")),
    };
    let options = Options {
        target,
        atomic,
        sync,
        record,
    };
    let result = watch::run(py, progress.as_ref(), |control| {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        let file = File::from(opened.map_err(Error::io("open", &path))?);
        let found = file.metadata().map_err(Error::io("read", &path))?;
        if (found.dev(), found.ino()) != identity {
            return Err(Error::LayerChanged {
                path: path.clone(),
                reason: "another file was put in its place".into(),
            });
        }
        grow::grow(file, &path, &options, control)
    })?;
    let outcome = result.map_err(|error| Failure {
        error,
        area: Area::Output,
    })?;
    Ok(match outcome {
        Outcome::Done(report) => (Some(GrowReport(*report)), None),
        Outcome::NeedsCopy(reason) => (None, Some(reason)),
    })
}
