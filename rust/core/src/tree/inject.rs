//! Puts files of the user into a tree, as if one more layer held them.
//!
//! The destination is resolved *inside* the tree, as a process would that was
//! chrooted into it: nothing of the host but the source file is looked at. So
//! an image whose `/sbin` is a symlink to `/usr/sbin`, to `../../../sbin` or to
//! nothing at all gets the file where its own programs will find it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::{
    Content, Identity, InodeFlags, Kind, Metadata, Node, NodeId, Slot, Timestamp, Tree, XattrSetId,
};
use crate::error::{Error, Result};
use crate::sized::demand_empty;

/// The kernel follows as many symlinks on one path (`MAXSYMLINKS`).
pub(super) const MAX_SYMLINKS: u32 = 40;
/// The longest name of a directory entry (`EXT4_NAME_LEN`, `NAME_MAX`).
const MAX_NAME: usize = 255;
/// Permissions of directories made on the way.
const DIRECTORY_PERMISSIONS: u16 = 0o755;

/// Where an injected file's bytes come from.
#[derive(Clone, Debug)]
pub enum InjectionSource {
    /// A regular file of the host; symlinks are followed there.
    Host(PathBuf),
    /// The bytes themselves.
    Bytes(Box<[u8]>),
}

/// A file to put into the tree.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Its bytes.
    pub source: InjectionSource,
    /// Its absolute path in the image. Symlinks in the directories of it are
    /// followed inside the image; a symlink at the path itself is replaced, for
    /// the file must be found at this very path.
    pub destination: Vec<u8>,
    /// The 12 low bits of its mode.
    pub permissions: u16,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Tree {
    /// Puts `file` into the tree and returns its inode.
    ///
    /// Missing directories on the way (also those a dangling symlink points
    /// at) are made, 0755 and root's. A file, symlink or device that has the
    /// destination's name loses that name; its other hard links stay as they
    /// are. Everything made bears the newest mtime of the tree, so that the
    /// result hangs on no clock; directories that were there keep theirs.
    ///
    /// # Errors
    /// [`Error::Injection`] when the destination is no path for a file or
    /// leads through something that is no directory, [`Error::Io`] when the
    /// host file cannot be read. The tree is of no use then.
    pub fn inject(&mut self, file: &Injection) -> Result<NodeId> {
        let (parents, name) = split(&file.destination)?;
        let (size, content) = open_source(file)?;
        let mut way = Way {
            mtime: self.newest_mtime(),
            tree: self,
            file,
            touched: Vec::new(),
        };
        let parent = way.resolve(parents)?;
        let mtime = way.mtime;
        way.touch(parent);
        let touched = way.touched;

        let replaced = self.lookup(parent, name);
        if let Some(old) = replaced {
            if self.directory(old).is_some() {
                return Err(refuse(
                    file,
                    "there is a directory of that name; give the path of the file itself",
                ));
            }
        }
        let content = self.add_content(content)?;
        let node = self.add_node(Node {
            kind: Kind::File { size, content },
            metadata: Metadata {
                mtime,
                uid: file.uid,
                gid: file.gid,
                permissions: file.permissions & 0o7777,
                xattrs: XattrSetId::EMPTY,
                flags: InodeFlags::empty(),
            },
            links: 0,
        })?;
        self.link(parent, name, node)?;
        if let Some(old) = replaced {
            self.hide(old);
        }
        for directory in touched {
            self.push_directory_slot(directory)?;
        }
        self.push_slot(Slot::Node(node))?;
        Ok(node)
    }

    /// The newest mtime of what is visible.
    #[must_use]
    pub fn newest_mtime(&self) -> Timestamp {
        self.nodes()
            .filter(|(id, node)| node.links > 0 || *id == self.root())
            .map(|(_, node)| node.metadata.mtime)
            .max()
            .unwrap_or_default()
    }

    /// An inode that lost its last name keeps its place as a ghost, as if a
    /// higher layer hid it.
    fn hide(&mut self, old: NodeId) {
        let node = self.node(old);
        if node.links > 0 {
            return;
        }
        let size = match node.kind {
            Kind::File { size, .. } => size,
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        for slot in &mut self.slots {
            if *slot == Slot::Node(old) {
                *slot = Slot::Ghost { inode: true, size };
            }
        }
    }

    fn push_directory_slot(&mut self, node: NodeId) -> Result<()> {
        let entries = self.directory(node).map_or(&[][..], |dir| &dir.entries);
        let bytes: usize = entries.iter().map(|entry| entry.name.len()).sum();
        let slot = Slot::Directory {
            node,
            names: super::to_u32(entries.len())?,
            bytes: super::to_u32(bytes)?,
        };
        self.push_slot(slot)
    }
}

/// The walk to a destination's directory.
struct Way<'a> {
    tree: &'a mut Tree,
    file: &'a Injection,
    /// The mtime of whatever is made.
    mtime: Timestamp,
    /// Directories that were made or got a name, in the order of that.
    touched: Vec<NodeId>,
}

impl Way<'_> {
    /// Walks along `path` from the root, making what is missing.
    fn resolve(&mut self, path: &[u8]) -> Result<NodeId> {
        let mut here = self.tree.root();
        let mut links = 0;
        // Names still to be walked, the next one last.
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        push_components(&mut ahead, path);
        while let Some(name) = ahead.pop() {
            if name == b".." {
                // The root's parent is the root.
                here = self.tree.directory(here).map_or(here, |dir| dir.parent);
                continue;
            }
            let Some(next) = self.tree.lookup(here, &name) else {
                here = self.make_directory(here, &name)?;
                continue;
            };
            match self.tree.node(next).kind {
                Kind::Directory(_) => here = next,
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(self.refuse_at(
                            next,
                            "leads through more than 40 symlinks, which the kernel takes for a loop",
                        ));
                    }
                    let target = self.tree.name(target).to_vec();
                    if target.first() == Some(&b'/') {
                        here = self.tree.root();
                    }
                    push_components(&mut ahead, &target);
                }
                _ => return Err(self.refuse_at(next, "is no directory")),
            }
        }
        Ok(here)
    }

    fn make_directory(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId> {
        if name.len() > MAX_NAME {
            return Err(refuse(
                self.file,
                format!(
                    "the name {} on the way has {} bytes; ext4 holds names of at most {MAX_NAME}",
                    String::from_utf8_lossy(&name[..32]),
                    name.len()
                ),
            ));
        }
        let made = self.tree.add_directory(Metadata {
            mtime: self.mtime,
            uid: 0,
            gid: 0,
            permissions: DIRECTORY_PERMISSIONS,
            xattrs: XattrSetId::EMPTY,
            flags: InodeFlags::empty(),
        })?;
        self.tree.link(parent, name, made)?;
        self.touch(parent);
        self.touch(made);
        Ok(made)
    }

    fn touch(&mut self, directory: NodeId) {
        if !self.touched.contains(&directory) {
            self.touched.push(directory);
        }
    }

    fn refuse_at(&self, node: NodeId, reason: &str) -> Error {
        refuse(
            self.file,
            format!("in the image, {} {reason}", self.tree.display_path(node)),
        )
    }
}

/// Puts a path's names before those in `ahead` (whose next one is the last),
/// without empty ones and ".".
pub(super) fn push_components(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    ahead.extend(
        path.split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
            .rev()
            .map(<[u8]>::to_vec),
    );
}

/// The path of the directory, and the name in it.
fn split(destination: &[u8]) -> Result<(&[u8], &[u8])> {
    let refuse = |reason: &str| Error::Injection {
        path: String::from_utf8_lossy(destination).into_owned(),
        reason: reason.into(),
    };
    if destination.first() != Some(&b'/') {
        return Err(refuse(
            "a destination is an absolute path in the image, such as /sbin/vm-agent",
        ));
    }
    if destination.contains(&0) {
        return Err(refuse("a path cannot hold a NUL byte"));
    }
    // OK to unwrap: it begins with a slash.
    let slash = destination.iter().rposition(|&byte| byte == b'/').unwrap();
    let (parents, name) = (&destination[..slash], &destination[slash + 1..]);
    if matches!(name, b"" | b"." | b"..") {
        return Err(refuse(
            "this names a directory; give the path of the file itself",
        ));
    }
    for name in destination.split(|&byte| byte == b'/') {
        if name.len() > MAX_NAME {
            return Err(refuse(&format!(
                "one of its names has {} bytes; ext4 holds names of at most {MAX_NAME}",
                name.len()
            )));
        }
    }
    Ok((parents, name))
}

fn refuse(file: &Injection, reason: impl Into<String>) -> Error {
    Error::Injection {
        path: String::from_utf8_lossy(&file.destination).into_owned(),
        reason: reason.into(),
    }
}

/// Size and content of what is to be put in.
fn open_source(file: &Injection) -> Result<(u64, Content)> {
    match &file.source {
        InjectionSource::Bytes(bytes) => Ok((bytes.len() as u64, Content::Bytes(bytes.clone()))),
        InjectionSource::Host(path) => {
            // The type first: opening a device can have effects.
            let stat = rustix::fs::stat(path).map_err(Error::io("read", path))?;
            demand_regular(&stat, path, file)?;
            let (opened, stat) = open_readable(path)?;
            demand_regular(&stat, path, file)?;
            let identity = Identity {
                inode: stat.st_ino,
                mtime: Timestamp {
                    seconds: stat.st_mtime,
                    nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
                },
            };
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            if size == 0 {
                demand_empty(&opened, path)?;
            }
            Ok((
                size,
                Content::Host {
                    path: path.clone(),
                    identity,
                },
            ))
        }
    }
}

fn open_readable(path: &Path) -> Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened: OwnedFd =
        rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
    let stat = rustix::fs::fstat(&opened).map_err(Error::io("read", path))?;
    Ok((opened, stat))
}

fn demand_regular(stat: &Stat, path: &Path, file: &Injection) -> Result<()> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        _ => "of an unknown type",
    };
    Err(refuse(
        file,
        format!("{} is {kind}; a regular file is expected", path.display()),
    ))
}

#[cfg(test)]
#[path = "inject_tests.rs"]
mod tests;
