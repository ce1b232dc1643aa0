//! `build_image` and `inspect_layers`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use layermelt_core::build::{self, BuildSpec};
use layermelt_core::control::Phase;
use layermelt_core::ext4::plan::{ImageOptions, JournalSize, Profile, Size};
use layermelt_core::layers::{self, MergeOptions};
use layermelt_core::tree::inject::{Injection, InjectionSource};
use layermelt_core::{tree, Error};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use rustix::fs::{Mode, OFlags};

use crate::error::{Area, Failure};
use crate::watch;

/// How much is in a tree.
#[pyclass(frozen, get_all, module = "layermelt._core")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    entries: u64,
    directories: u64,
    files: u64,
    symlinks: u64,
    special: u64,
    hard_links: u64,
    bytes: u64,
}

impl From<tree::Counts> for Counts {
    fn from(counts: tree::Counts) -> Self {
        Self {
            entries: counts.entries,
            directories: counts.directories,
            files: counts.files,
            symlinks: counts.symlinks,
            special: counts.special,
            hard_links: counts.hard_links,
            bytes: counts.bytes,
        }
    }
}

/// What a build did.
#[pyclass(frozen, module = "layermelt._core")]
#[derive(Debug)]
pub(crate) struct BuildReport(build::BuildReport);

#[pymethods]
impl BuildReport {
    #[getter]
    fn counts(&self) -> Counts {
        self.0.counts.into()
    }

    #[getter]
    const fn image_bytes(&self) -> u64 {
        self.0.image_bytes
    }

    #[getter]
    const fn written_bytes(&self) -> u64 {
        self.0.written_bytes
    }

    #[getter]
    const fn block_size(&self) -> u32 {
        self.0.block_size
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
    const fn blocks(&self) -> u64 {
        self.0.blocks
    }

    #[getter]
    const fn free_blocks(&self) -> u64 {
        self.0.free_blocks
    }

    #[getter]
    fn uuid<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.uuid)
    }

    #[getter]
    fn copy_method(&self) -> &str {
        &self.0.copy_method
    }

    #[getter]
    fn warnings(&self) -> Vec<&str> {
        self.0.warnings.iter().map(String::as_str).collect()
    }

    /// Seconds by phase, in the order of the phases.
    #[getter]
    fn phases<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let phases = PyDict::new(py);
        for (phase, duration) in &self.0.phases {
            phases.set_item(phase.name(), duration.as_secs_f64())?;
        }
        Ok(phases)
    }
}

/// A file to put in: (host path or content, path in the image, permissions,
/// owner, group).
type FileArgument = (SourceArgument, PyBackedBytes, u16, u32, u32);

#[derive(FromPyObject)]
pub(crate) enum SourceArgument {
    Bytes(PyBackedBytes),
    Host(PathBuf),
}

#[derive(FromPyObject)]
pub(crate) enum SizeArgument {
    Bytes(u64),
    Name(String),
}

fn size(argument: &SizeArgument) -> Result<Size, Failure> {
    match argument {
        SizeArgument::Bytes(bytes) => Ok(Size::Bytes(*bytes)),
        SizeArgument::Name(name) if name == "auto" => Ok(Size::Auto),
        SizeArgument::Name(name) if name == "min" => Ok(Size::Min),
        SizeArgument::Name(name) => Err(Failure {
            error: Error::InvalidOption {
                option: "size",
                reason: format!("{name:?} is neither \"auto\" nor \"min\" nor a number of bytes"),
            },
            area: Area::Output,
        }),
    }
}

fn injection(argument: &FileArgument) -> Injection {
    let (source, destination, permissions, uid, gid) = argument;
    Injection {
        source: match source {
            SourceArgument::Bytes(bytes) => InjectionSource::Bytes((**bytes).into()),
            SourceArgument::Host(path) => InjectionSource::Host(path.clone()),
        },
        destination: destination.to_vec(),
        permissions: *permissions,
        uid: *uid,
        gid: *gid,
    }
}

/// Merges the layers and writes their image into the existing, empty file
/// `output`; `target` is its path for messages.
#[pyfunction]
#[pyo3(signature = (layers, output, target, *, userxattr, fuse_overlayfs, files, size, free_space, inodes,
    label, uuid, timestamp, threads, sync, progress, profile="default", journal=None, reserved=0,
    check_agent=false, block_size=4096, inode_flags=false))]
#[expect(
    clippy::too_many_arguments,
    reason = "they are keywords, and Python's function checks them"
)]
pub(crate) fn build_image(
    py: Python<'_>,
    layers: Vec<PathBuf>,
    output: PathBuf,
    target: PathBuf,
    userxattr: bool,
    fuse_overlayfs: bool,
    files: Vec<FileArgument>,
    size: SizeArgument,
    free_space: u64,
    inodes: Option<u64>,
    label: PyBackedBytes,
    uuid: Option<[u8; 16]>,
    timestamp: Option<i64>,
    threads: usize,
    sync: bool,
    progress: Option<Py<PyAny>>,
    profile: &str,
    journal: Option<u64>,
    reserved: u64,
    check_agent: bool,
    block_size: u32,
    inode_flags: bool,
) -> PyResult<BuildReport> {
    let spec = BuildSpec {
        layers,
        merge: MergeOptions {
            userxattr,
            fuse_overlayfs,
            inode_flags,
            ..MergeOptions::default()
        },
        files: files.iter().map(injection).collect(),
        check_agent,
        image: ImageOptions {
            size: self::size(&size)?,
            free_space,
            inodes,
            label: label.to_vec(),
            uuid,
            timestamp,
            profile: self::profile(profile)?,
            journal: match journal {
                None => JournalSize::Auto,
                Some(0) => JournalSize::None,
                Some(bytes) => JournalSize::Bytes(bytes),
            },
            reserved,
            block_size,
        },
        threads,
        sync,
    };
    let report = watch::run(py, progress.as_ref(), |control| {
        let file = open_output(&output, &target)?;
        build::build(&spec, &file, &target, control)
    })?;
    Ok(BuildReport(report.map_err(|error| {
        let area = area_of(&error, &target, &spec.files);
        Failure { error, area }
    })?))
}

/// Sees that the merged layers can run the agent. Nothing is written.
#[pyfunction]
#[pyo3(signature = (layers, *, userxattr, fuse_overlayfs, agent, threads, progress))]
pub(crate) fn check_agent(
    py: Python<'_>,
    layers: Vec<PathBuf>,
    userxattr: bool,
    fuse_overlayfs: bool,
    agent: FileArgument,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<()> {
    let options = MergeOptions {
        userxattr,
        fuse_overlayfs,
        ..MergeOptions::default()
    };
    let agent = injection(&agent);
    let checked = watch::run(py, progress.as_ref(), |control| {
        build::check_agent(&layers, options, &agent, threads, control)
    })?;
    checked.map_err(|error| {
        let area = area_of(&error, Path::new(""), std::slice::from_ref(&agent));
        Failure { error, area }.into()
    })
}

/// Sees that the image that is mounted at `root` can run the agent, which lies
/// on the host at `agent` and is called `named`. Nothing is written.
#[pyfunction]
#[pyo3(signature = (root, agent, *, named, mode))]
pub(crate) fn check_agent_mounted(
    py: Python<'_>,
    root: PathBuf,
    agent: PathBuf,
    named: PathBuf,
    mode: u16,
) -> PyResult<()> {
    let checked = watch::run(py, None, |_control| {
        let named = named.display().to_string();
        layermelt_core::agent::check_mounted(&root, &agent, &named, mode)
    })?;
    checked.map_err(|error| {
        let on_agent = matches!(&error, Error::Io { path, .. } if *path == agent);
        let area = if on_agent { Area::File } else { Area::Image };
        Failure { error, area }.into()
    })
}

/// Merges the layers and counts what is in them: (counts, warnings, seconds).
#[pyfunction]
#[pyo3(signature = (layers, *, userxattr, fuse_overlayfs, threads, progress=None))]
pub(crate) fn inspect_layers(
    py: Python<'_>,
    layers: Vec<PathBuf>,
    userxattr: bool,
    fuse_overlayfs: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Counts, Vec<String>, f64)> {
    let since = Instant::now();
    let options = MergeOptions {
        userxattr,
        fuse_overlayfs,
        ..MergeOptions::default()
    };
    let threads = build::effective_threads(threads);
    let merged = watch::run(py, progress.as_ref(), |control| {
        let (tree, _files, warnings) =
            layers::merge(&layers, options, threads, control, |_: Phase| {})?;
        Ok((tree.counts(), warnings))
    })?;
    let (counts, warnings) = merged.map_err(|error| Failure {
        error,
        area: Area::Layer,
    })?;
    Ok((counts.into(), warnings, since.elapsed().as_secs_f64()))
}

fn profile(name: &str) -> PyResult<Profile> {
    match name {
        "default" => Ok(Profile::Default),
        "compat" => Ok(Profile::Compat),
        "readonly" => Ok(Profile::Readonly),
        _ => Err(PyValueError::new_err(format!("no profile {name:?}"))),
    }
}

pub(crate) fn open_output(output: &Path, target: &Path) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened =
        rustix::fs::open(output, flags, Mode::empty()).map_err(Error::io("open", target))?;
    Ok(File::from(opened))
}

/// What the path of an error is: the core tells only the path itself.
fn area_of(error: &Error, target: &Path, files: &[Injection]) -> Area {
    let Error::Io { path, .. } = error else {
        return Area::Layer;
    };
    let is_file =
        |file: &Injection| matches!(&file.source, InjectionSource::Host(host) if host == path);
    if path == target {
        Area::Output
    } else if files.iter().any(is_file) {
        Area::File
    } else {
        Area::Layer
    }
}
