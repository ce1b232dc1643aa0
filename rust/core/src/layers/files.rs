//! Opens the files that a merged tree tells of.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, CWD};
use rustix::io::Errno;

use super::access::Access;
use super::chain::Chain;
use super::walk::{Above, Lineage, Walker};
use crate::blockio::{ContentStore, Opened, Opener};
use crate::error::{Error, Result};
use crate::tree::{Content, ContentId, Identity, SourceDirId, Tree};

/// Descriptors that one opener keeps.
const HELD: usize = 16;

/// The opened layers.
#[derive(Debug)]
pub struct LayerFiles {
    chain: Chain,
    noatime: bool,
}

impl LayerFiles {
    pub(super) fn new(chain: Chain, access: Access) -> Self {
        Self {
            chain,
            noatime: access.noatime,
        }
    }
}

impl LayerFiles {
    /// For one thread: what the file system says of `tree`'s files now.
    #[must_use]
    pub fn statuses<'a>(&'a self, tree: &'a Tree) -> Statuses<'a> {
        Statuses(LayerOpener {
            files: self,
            tree,
            walker: Walker::new(HELD, OFlags::PATH),
            noatime: self.noatime,
        })
    }
}

/// Looks at files without opening them.
pub struct Statuses<'a>(LayerOpener<'a>);

impl std::fmt::Debug for Statuses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statuses").finish_non_exhaustive()
    }
}

impl Statuses<'_> {
    /// `None` for a content that lies in no layer.
    pub fn get(&mut self, content: ContentId) -> Result<Option<Stat>> {
        let opener = &mut self.0;
        let Content::Layer {
            directory, name, ..
        } = opener.tree.content(content)
        else {
            return Ok(None);
        };
        opener
            .walker
            .route(number(*directory), &Sources(opener.tree));
        let name = opener.tree.name(*name);
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = opener
            .walker
            .go(&opener.files.chain)
            .and_then(|directory| rustix::fs::statat(directory, name, flags));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) => Err(opener.failed(error, content)),
        }
    }
}

impl ContentStore for LayerFiles {
    fn opener<'a>(&'a self, tree: &'a Tree) -> Box<dyn Opener + 'a> {
        Box::new(LayerOpener {
            files: self,
            tree,
            walker: Walker::new(HELD, OFlags::PATH),
            noatime: self.noatime,
        })
    }
}

struct LayerOpener<'a> {
    files: &'a LayerFiles,
    tree: &'a Tree,
    walker: Walker,
    noatime: bool,
}

/// A tree's layers' directories, by the index of their [`SourceDirId`].
struct Sources<'a>(&'a Tree);

impl Lineage for Sources<'_> {
    fn above(&self, directory: u32) -> Above<'_> {
        let source = self.0.source(SourceDirId::new(directory));
        match source.parent {
            None => Above::Root(source.layer as usize),
            Some((parent, name)) => Above::Inside {
                parent: number(parent),
                name: self.0.name(name),
            },
        }
    }
}

fn number(id: SourceDirId) -> u32 {
    // OK to convert: ids have 32 bits.
    u32::try_from(id.index()).unwrap_or(u32::MAX)
}

impl Opener for LayerOpener<'_> {
    fn open(&mut self, content: ContentId) -> Result<Opened<'_>> {
        let tree = self.tree;
        let opened = match tree.content(content) {
            Content::Bytes(bytes) => return Ok(Opened::Bytes(bytes)),
            Content::Host { path, .. } => {
                self.open_at(CWD, path.as_os_str().as_bytes(), OFlags::empty())
            }
            Content::Layer {
                directory, name, ..
            } => {
                let name = tree.name(*name);
                let mut walker =
                    std::mem::replace(&mut self.walker, Walker::new(HELD, OFlags::PATH));
                walker.route(number(*directory), &Sources(tree));
                let opened = walker
                    .go(&self.files.chain)
                    .and_then(|directory| self.open_at(directory, name, OFlags::NOFOLLOW));
                self.walker = walker;
                opened
            }
        };
        let file = opened.map_err(|error| self.failed(error, content))?;
        Ok(Opened::File(file))
    }

    fn still_same(&self, content: ContentId, size: u64, file: &OwnedFd) -> Result<()> {
        match self.tree.content(content) {
            Content::Bytes(_) => Ok(()),
            Content::Host { identity, .. } | Content::Layer { identity, .. } => {
                compare(file, size, *identity).map_err(|reason| Error::LayerChanged {
                    path: self.path(content),
                    reason,
                })
            }
        }
    }

    fn path(&self, content: ContentId) -> PathBuf {
        match self.tree.content(content) {
            Content::Bytes(_) => PathBuf::from("(bytes in memory)"),
            Content::Host { path, .. } => path.clone(),
            Content::Layer {
                directory, name, ..
            } => {
                let mut names = vec![self.tree.name(*name)];
                let sources = Sources(self.tree);
                let mut at = number(*directory);
                let layer = loop {
                    match sources.above(at) {
                        Above::Root(layer) => break layer,
                        Above::Inside { parent, name } => {
                            names.push(name);
                            at = parent;
                        }
                    }
                };
                let mut path = self.files.chain.path(layer).to_path_buf();
                path.extend(
                    names
                        .iter()
                        .rev()
                        .map(|name| Path::new(OsStr::from_bytes(name))),
                );
                path
            }
        }
    }
}

impl LayerOpener<'_> {
    fn failed(&self, error: Errno, content: ContentId) -> Error {
        let path = self.path(content);
        match error {
            // A FIFO, socket or device in its place gives ENXIO.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV => {
                Error::LayerChanged {
                    path,
                    reason: "it is there no more".into(),
                }
            }
            _ => Error::io("open", path)(error),
        }
    }

    /// `O_NONBLOCK`: whatever lies there now, opening it must not hang.
    fn open_at(
        &mut self,
        directory: impl AsFd,
        name: &[u8],
        more: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
        if self.noatime {
            match rustix::fs::openat(&directory, name, flags | OFlags::NOATIME, Mode::empty()) {
                // For the owner only; see `Walker::go`.
                Err(Errno::PERM) => self.noatime = false,
                other => return other,
            }
        }
        rustix::fs::openat(directory, name, flags, Mode::empty())
    }
}

fn compare(file: &OwnedFd, size: u64, identity: Identity) -> Result<(), String> {
    let stat = rustix::fs::fstat(file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is no regular file any more".into());
    }
    if stat.st_ino != identity.inode {
        return Err("another file has its name".into());
    }
    let now = u64::try_from(stat.st_size).unwrap_or(0);
    if now != size {
        return Err(format!("it had {size} bytes and has {now}"));
    }
    let mtime = (stat.st_mtime, u64::from(identity.mtime.nanoseconds));
    if mtime != (identity.mtime.seconds, stat.st_mtime_nsec) {
        return Err("its mtime is another one".into());
    }
    Ok(())
}
