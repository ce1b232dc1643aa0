//! The layers' roots.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat};

use super::access::Access;
use super::mounts::Mounts;
use crate::error::{Error, Result, Unreadable};

/// The opened layers, base first.
#[derive(Debug)]
pub(super) struct Chain {
    layers: Vec<Layer>,
    /// (`st_dev`, `st_ino`) of the roots.
    roots: HashMap<(u64, u64), usize>,
}

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    root: OwnedFd,
    stat: Stat,
}

impl Chain {
    /// Opens all layers. Symlinks in these paths are followed: they are the
    /// user's own words.
    pub(super) fn open(paths: &[PathBuf], access: &Access) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::InvalidOption {
                option: "layers",
                reason: "there is none; give at least one directory".into(),
            });
        }
        let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        flags.set(OFlags::NOATIME, access.noatime);
        let mut layers = Vec::with_capacity(paths.len());
        let mut roots = HashMap::new();
        let mut denied = Vec::new();
        let mounts = Mounts::read();
        for path in paths {
            let root = match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(root) => root,
                Err(error @ (rustix::io::Errno::ACCESS | rustix::io::Errno::PERM)) => {
                    denied.push(Unreadable {
                        path: path.clone(),
                        source: error.into(),
                    });
                    continue;
                }
                Err(error) => return Err(Error::io("open", path)(error)),
            };
            mounts.refuse_inside(path, root.as_fd())?;
            let stat = rustix::fs::fstat(&root).map_err(Error::io("stat", path))?;
            if let Some(other) = roots.insert((stat.st_dev, stat.st_ino), layers.len()) {
                return Err(overlap(path, &paths[other]));
            }
            layers.push(Layer {
                path: path.clone(),
                root,
                stat,
            });
        }
        if !denied.is_empty() {
            return Err(Error::Unreadable {
                paths: denied,
                more: 0,
            });
        }
        Ok(Self { layers, roots })
    }

    /// How many there are.
    pub(super) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The directory of a layer, as it was given.
    pub(super) fn path(&self, layer: usize) -> &Path {
        &self.layers[layer].path
    }

    /// The open root of a layer.
    pub(super) fn root(&self, layer: usize) -> BorrowedFd<'_> {
        self.layers[layer].root.as_fd()
    }

    /// What its root was when it was opened.
    pub(super) fn stat(&self, layer: usize) -> &Stat {
        &self.layers[layer].stat
    }

    /// The kernel refuses to mount a layer that lies within another one
    /// (`ELOOP`, "overlapping lowerdir path").
    pub(super) fn refuse_overlap(&self, layer: usize, device: u64, inode: u64) -> Result<()> {
        match self.roots.get(&(device, inode)) {
            Some(&inner) => Err(overlap(self.path(inner), self.path(layer))),
            None => Ok(()),
        }
    }
}

fn overlap(inner: &Path, outer: &Path) -> Error {
    Error::InvalidOption {
        option: "layers",
        reason: format!(
            "{} is or lies within another layer, {}; the kernel refuses such a chain as well",
            inner.display(),
            outer.display()
        ),
    }
}
