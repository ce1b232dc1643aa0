//! `diff_trees`.

use std::path::PathBuf;
use std::sync::Mutex;

use layermelt_core::build::effective_threads;
use layermelt_core::diff::{self, Change, DiffOptions, Difference, Found, Group, Ignore, Side};
use layermelt_core::layers::MergeOptions;
use layermelt_core::load::{self, Source};
use layermelt_core::tree::{Counts as TreeCounts, Timestamp};
use layermelt_core::Error;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};
use pyo3::IntoPyObjectExt;

use crate::build::Counts;
use crate::error::{Area, Failure};
use crate::watch;

/// (kind, paths, userxattr, fuse_overlayfs)
type SideArgument = (String, Vec<PathBuf>, bool, bool);

fn source(argument: SideArgument) -> PyResult<Source> {
    let (kind, mut paths, userxattr, fuse_overlayfs) = argument;
    match (kind.as_str(), paths.len()) {
        ("chain", _) => Ok(Source::Chain {
            layers: paths,
            options: MergeOptions {
                userxattr,
                fuse_overlayfs,
                ..MergeOptions::default()
            },
        }),
        ("directory", 1) => Ok(Source::Directory(paths.remove(0))),
        ("image", 1) => Ok(Source::Image(paths.remove(0))),
        _ => Err(PyValueError::new_err(format!("no side {kind:?}"))),
    }
}

fn ignore(fields: &[String]) -> PyResult<Ignore> {
    let mut ignore = Ignore::empty();
    for field in fields {
        ignore |= match field.as_str() {
            "mode" => Ignore::MODE,
            "owner" => Ignore::OWNER,
            "mtime" => Ignore::MTIME,
            "xattrs" => Ignore::XATTRS,
            "links" => Ignore::LINKS,
            "content" => Ignore::CONTENT,
            _ => return Err(PyValueError::new_err(format!("no field {field:?}"))),
        };
    }
    Ok(ignore)
}

/// ((only in a, only in b, changed), counts of a, counts of b, warnings)
type Totals = ((u64, u64, u64), Counts, Counts, Vec<String>);

/// What is compared with what, and how it ended.
struct Compared {
    counts: diff::Counts,
    trees: [TreeCounts; 2],
    warnings: Vec<String>,
}

/// Compares two trees and calls `tell` with each difference.
#[pyfunction]
#[pyo3(signature = (a, b, *, ignore, exclude, all_names, strict, threads, tell, progress))]
#[expect(
    clippy::too_many_arguments,
    reason = "they are keywords, and Python's function checks them"
)]
pub(crate) fn diff_trees(
    py: Python<'_>,
    a: SideArgument,
    b: SideArgument,
    ignore: Vec<String>,
    exclude: Vec<PyBackedBytes>,
    all_names: bool,
    strict: bool,
    threads: usize,
    tell: Py<PyAny>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Totals> {
    let sources = [source(a)?, source(b)?];
    let options = DiffOptions {
        ignore: self::ignore(&ignore)?,
        exclude: exclude.iter().map(|path| path.to_vec()).collect(),
        all: all_names,
        strict,
    };
    let threads = effective_threads(threads);
    let raised = Mutex::new(None);
    let area = Mutex::new(Area::Layer);
    let result = watch::run(py, progress.as_ref(), |control| {
        let load = |source: &Source| {
            set(&area, area_of(source));
            load::load(source, threads, control)
        };
        let (a, b) = (load(&sources[0])?, load(&sources[1])?);
        let sides = [&a, &b].map(|loaded| Side {
            tree: &loaded.tree,
            files: &*loaded.files,
        });
        // Images are read by descriptors that are open; layers are gone through again.
        set(&area, Area::Layer);
        let tell = |difference: &Difference<'_>| {
            let told = Python::attach(|py| tell.call1(py, (python(py, difference)?,)));
            told.map(drop).map_err(|error| {
                set(&raised, Some(error));
                Error::Interrupted
            })
        };
        // Python knows this thread from here on: otherwise it would make and
        // forget a state of it for each difference.
        let counts = Python::attach(|py| {
            py.detach(|| diff::diff(sides[0], sides[1], &options, threads, control, tell))
        })?;
        Ok(Compared {
            counts,
            trees: [a.tree.counts(), b.tree.counts()],
            warnings: [a.warnings, b.warnings].concat(),
        })
    })?;
    if let Some(error) = raised
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        return Err(error);
    }
    let area = area
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let compared = result.map_err(|error| Failure { error, area })?;
    let [only_a, only_b] = compared.counts.only;
    let [a, b] = compared.trees;
    Ok((
        (only_a, only_b, compared.counts.changed),
        a.into(),
        b.into(),
        compared.warnings,
    ))
}

fn set<T>(place: &Mutex<T>, value: T) {
    *place
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = value;
}

const fn area_of(source: &Source) -> Area {
    match source {
        Source::Chain { .. } | Source::Directory(_) => Area::Layer,
        Source::Image(_) => Area::Image,
    }
}

/// (path, kind, type, size, below, changes), where each change is
/// (field, name, a, b).
fn python<'py>(py: Python<'py>, difference: &Difference<'_>) -> PyResult<Bound<'py, PyTuple>> {
    let path = PyBytes::new(py, difference.path);
    let changes = PyList::empty(py);
    match &difference.found {
        Found::Only {
            side,
            kind,
            size,
            below,
        } => {
            let only = ["only-a", "only-b"][*side];
            (path, only, Some(kind.name()), *size, *below, changes).into_pyobject(py)
        }
        Found::Changed {
            changes: all,
            below,
        } => {
            for change in *all {
                changes.append(change_tuple(py, change)?)?;
            }
            let none: (Option<&str>, Option<u64>) = (None, None);
            (path, "changed", none.0, none.1, *below, changes).into_pyobject(py)
        }
    }
}

fn change_tuple<'py>(py: Python<'py>, change: &Change<'_>) -> PyResult<Bound<'py, PyTuple>> {
    let bytes = |value: &[u8]| PyBytes::new(py, value).into_any();
    let mut name = None;
    let (field, a, b) = match change {
        Change::Type(a, b) => (
            "type",
            a.name().into_bound_py_any(py)?,
            b.name().into_bound_py_any(py)?,
        ),
        Change::Mode(a, b) => ("mode", a.into_bound_py_any(py)?, b.into_bound_py_any(py)?),
        Change::Uid(a, b) => ("uid", a.into_bound_py_any(py)?, b.into_bound_py_any(py)?),
        Change::Gid(a, b) => ("gid", a.into_bound_py_any(py)?, b.into_bound_py_any(py)?),
        Change::Mtime(a, b) => (
            "mtime",
            nanoseconds(*a).into_bound_py_any(py)?,
            nanoseconds(*b).into_bound_py_any(py)?,
        ),
        Change::Size(a, b) => ("size", a.into_bound_py_any(py)?, b.into_bound_py_any(py)?),
        Change::Target(a, b) => ("target", bytes(a), bytes(b)),
        Change::Device(a, b) => (
            "device",
            (a.major, a.minor).into_bound_py_any(py)?,
            (b.major, b.minor).into_bound_py_any(py)?,
        ),
        Change::Xattr(named, [a, b]) => {
            name = Some(bytes(named));
            (
                "xattr",
                a.map(bytes).into_bound_py_any(py)?,
                b.map(bytes).into_bound_py_any(py)?,
            )
        }
        Change::Links([a, b]) => ("links", group(py, a)?, group(py, b)?),
        Change::Content { offset } => {
            let offset = offset.into_bound_py_any(py)?;
            ("content", offset.clone(), offset)
        }
    };
    (field, name, a, b).into_pyobject(py)
}

fn group<'py>(py: Python<'py>, group: &Group) -> PyResult<Bound<'py, PyAny>> {
    let first = group.first.iter().map(|path| PyBytes::new(py, path));
    let first = PyTuple::new(py, first.collect::<Vec<_>>())?;
    (group.count, first).into_bound_py_any(py)
}

/// File systems tell any 64 bits of seconds.
fn nanoseconds(time: Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}
