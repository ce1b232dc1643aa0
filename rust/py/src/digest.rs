//! Digests and keys.

use std::borrow::Cow;
use std::path::PathBuf;

use layermelt_core::build::effective_threads;
use layermelt_core::digest::{self, Digest};
use layermelt_core::layers::MergeOptions;
use layermelt_core::Error;
use pyo3::prelude::*;

use crate::error::{Area, Failure};
use crate::watch;

/// As 32 bytes of Python.
type Bytes = Cow<'static, [u8]>;

fn finish(result: Result<Digest, Error>, area: Area) -> PyResult<Bytes> {
    let digest = result.map_err(|error| Failure { error, area })?;
    Ok(Cow::Owned(digest.to_vec()))
}

/// The digest of a layer directory with all its marks: 32 bytes.
#[pyfunction]
#[pyo3(signature = (layer, *, threads, progress, inode_flags=false))]
pub(crate) fn layer_digest(
    py: Python<'_>,
    layer: PathBuf,
    threads: usize,
    progress: Option<Py<PyAny>>,
    inode_flags: bool,
) -> PyResult<Bytes> {
    let threads = effective_threads(threads);
    let result = watch::run(py, progress.as_ref(), |control| {
        digest::layer_digest(&layer, inode_flags, threads, control)
    })?;
    finish(result, Area::Layer)
}

/// The digest of a chain, base first: 32 bytes.
#[pyfunction]
#[pyo3(signature = (layers, *, userxattr, fuse_overlayfs, threads, progress, inode_flags=false))]
pub(crate) fn chain_digest(
    py: Python<'_>,
    layers: Vec<PathBuf>,
    userxattr: bool,
    fuse_overlayfs: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
    inode_flags: bool,
) -> PyResult<Bytes> {
    let threads = effective_threads(threads);
    let options = MergeOptions {
        userxattr,
        fuse_overlayfs,
        inode_flags,
        ..MergeOptions::default()
    };
    let result = watch::run(py, progress.as_ref(), |control| {
        digest::chain_digest(&layers, options, threads, control)
    })?;
    finish(result, Area::Layer)
}

/// What says without reading data that a chain did not change: 32 bytes.
#[pyfunction]
#[pyo3(signature = (layers, *, userxattr, fuse_overlayfs, threads, progress, inode_flags=false))]
pub(crate) fn stat_fingerprint(
    py: Python<'_>,
    layers: Vec<PathBuf>,
    userxattr: bool,
    fuse_overlayfs: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
    inode_flags: bool,
) -> PyResult<Bytes> {
    let threads = effective_threads(threads);
    let options = MergeOptions {
        userxattr,
        fuse_overlayfs,
        inode_flags,
        ..MergeOptions::default()
    };
    let result = watch::run(py, progress.as_ref(), |control| {
        digest::stat_fingerprint(&layers, options, threads, control)
    })?;
    finish(result, Area::Layer)
}

/// The same of one layer: 32 bytes, and the newest ctime of a file with data in
/// ns since 1970, or none.
#[pyfunction]
#[pyo3(signature = (layer, *, threads, progress, inode_flags=false))]
pub(crate) fn layer_fingerprint(
    py: Python<'_>,
    layer: PathBuf,
    threads: usize,
    progress: Option<Py<PyAny>>,
    inode_flags: bool,
) -> PyResult<(Bytes, Option<i128>)> {
    let threads = effective_threads(threads);
    let result = watch::run(py, progress.as_ref(), |control| {
        digest::layer_fingerprint(&layer, inode_flags, threads, control)
    })?;
    let newest = result
        .as_ref()
        .map_or(i128::MIN, |found| found.newest_change);
    let digest = finish(result.map(|found| found.digest), Area::Layer)?;
    Ok((digest, (newest != i128::MIN).then_some(newest)))
}

/// The digest of a chain whose layers have these digests, base first: 32 bytes.
#[pyfunction]
#[pyo3(signature = (layers, *, userxattr, fuse_overlayfs))]
pub(crate) fn chain_of(layers: Vec<[u8; 32]>, userxattr: bool, fuse_overlayfs: bool) -> Bytes {
    let options = MergeOptions {
        userxattr,
        fuse_overlayfs,
        ..MergeOptions::default()
    };
    Cow::Owned(digest::chain_of(&layers, options).to_vec())
}

/// The digest of a file's data: 32 bytes.
#[pyfunction]
#[pyo3(signature = (path, *, threads, progress))]
pub(crate) fn file_digest(
    py: Python<'_>,
    path: PathBuf,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bytes> {
    let threads = effective_threads(threads);
    let result = watch::run(py, progress.as_ref(), |control| {
        digest::file_digest(&path, threads, control)
    })?;
    finish(result, Area::File)
}

/// The key by which older agents name a path's image: 16 hex digits.
#[pyfunction]
#[pyo3(signature = (path, /))]
pub(crate) fn path_key(path: &str) -> String {
    digest::path_key(path)
}
