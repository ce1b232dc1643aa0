//! The tree of an ext4 image, as a mount of it would show it.
//!
//! The image may be anyone's. Every inode that is a directory is read once, and
//! so is every block of a directory, so that loops end and the tree is no larger
//! than what lies in the image.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::attributes::{self, Attributes};
use super::files::{self, ImageFiles};
use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::ext4::read::dirent;
use crate::ext4::read::features;
use crate::ext4::read::filesystem::Filesystem;
use crate::ext4::read::inode::{self, flags, Inode, ROOT_INODE};
use crate::ext4::read::{journal, Fault, Read};
use crate::tree::{
    ContentId, Device, Entry, InodeFlags, Kind, Metadata, Node, NodeId, Timestamp, Tree, XattrSetId,
};

/// The longest target that a symlink has (`PATH_MAX`, with its NUL).
const MAX_TARGET: u64 = 4095;
/// All attributes together take no more memory than this: an image can say of
/// any number of files that they have the same large value.
const MAX_ATTRIBUTES: usize = 1 << 30;

/// Reads all but the files' bytes.
pub(super) fn load(path: &Path, control: &Control) -> Result<(Tree, ImageFiles)> {
    control.begin(Phase::Scan, 0);
    let corrupt = |reason: String| Error::CorruptImage {
        path: path.to_path_buf(),
        reason,
    };
    let mut fs = match Filesystem::open(path) {
        Ok(fs) => fs,
        Err(Fault::Host(error)) => return Err(error),
        Err(Fault::Nonsense(text)) => {
            let prefix = format!("{}: ", path.display());
            return Err(corrupt(text.strip_prefix(&prefix).unwrap_or(&text).into()));
        }
    };
    let (unknown, _) = features::unknown(&fs.sb);
    if !unknown.is_empty() {
        return Err(corrupt(format!(
            "it has features that are not known: {}",
            unknown.join(", ")
        )));
    }
    match journal::replay(&mut fs, control) {
        Ok(_) => {}
        Err(Fault::Host(error)) => return Err(error),
        Err(Fault::Nonsense(text)) => return Err(corrupt(text)),
    }
    let mut loader = Loader {
        fs: &fs,
        tree: Tree::new(EMPTY),
        known: HashMap::new(),
        blocks: HashSet::new(),
        attributes: 0,
        pending: Vec::new(),
    };
    let mut at = loader.tree.root();
    let read = loader.root().and_then(|()| {
        while let Some((number, node)) = loader.pending.pop() {
            control.check()?;
            at = node;
            let names = loader.directory(number, node)?;
            control.advance(names);
        }
        Ok(())
    });
    let tree = loader.tree;
    match read {
        Ok(()) => Ok((tree, ImageFiles::new(fs, path))),
        Err(Fault::Host(error)) => Err(error),
        Err(Fault::Nonsense(text)) => Err(corrupt(format!("in {}: {text}", tree.display_path(at)))),
    }
}

const EMPTY: Metadata = Metadata {
    mtime: Timestamp {
        seconds: 0,
        nanoseconds: 0,
    },
    uid: 0,
    gid: 0,
    permissions: 0,
    xattrs: XattrSetId::EMPTY,
    flags: InodeFlags::empty(),
};

struct Loader<'a> {
    fs: &'a Filesystem,
    tree: Tree,
    /// The nodes of inodes.
    known: HashMap<u32, NodeId>,
    /// The blocks of directories that were read.
    blocks: HashSet<u64>,
    /// Bytes of all sets of attributes.
    attributes: usize,
    /// A stack of directories to read.
    pending: Vec<(u32, NodeId)>,
}

fn nonsense<T>(text: String) -> Read<T> {
    Err(Fault::Nonsense(text))
}

impl Loader<'_> {
    fn root(&mut self) -> Read<()> {
        let (inode, attributes) = self.inode(ROOT_INODE)?;
        if inode.kind() != Some(inode::Kind::Directory) {
            return nonsense("the root is no directory".into());
        }
        let metadata = self.metadata(&inode, attributes)?;
        let root = self.tree.root();
        self.tree.node_mut(root).metadata = metadata;
        self.known.insert(ROOT_INODE, root);
        self.pending.push((ROOT_INODE, root));
        Ok(())
    }

    /// An inode that a name leads to, as `ext4_iget` takes it.
    fn inode(&self, number: u32) -> Read<(Inode, Attributes)> {
        let first = self.fs.sb.s_first_ino;
        if number != ROOT_INODE && number < first {
            return nonsense(format!(
                "inode {number} is one of the file system's own; {first} is the first of others"
            ));
        }
        let raw = self.fs.raw_inode(number)?;
        if self.fs.sb.has_checksums() {
            let (stored, computed) = inode::checksums(number, &raw, self.fs.sb.checksum_seed());
            if stored != computed {
                return nonsense(format!(
                    "inode {number}: its checksum is {stored:08x}, not {computed:08x}"
                ));
            }
        }
        let Some(inode) = Inode::decode(&raw) else {
            return nonsense(format!("inode {number} is too short"));
        };
        if inode.i_links_count == 0 && number != ROOT_INODE {
            return nonsense(format!("inode {number} is deleted, and has a name"));
        }
        if inode.has(flags::ENCRYPT) {
            return nonsense(format!(
                "inode {number} is encrypted, which cannot be compared"
            ));
        }
        let attributes = attributes::read(self.fs, number, &inode, &raw)?;
        Ok((inode, attributes))
    }

    fn metadata(&mut self, inode: &Inode, attributes: Attributes) -> Read<Metadata> {
        let sets = self.tree.xattr_sets().len();
        let bytes: usize = attributes
            .shown
            .iter()
            .map(|xattr| xattr.name.len() + xattr.value.len())
            .sum();
        let xattrs = self.tree.add_xattrs(attributes.shown.into_boxed_slice())?;
        if self.tree.xattr_sets().len() > sets {
            self.attributes = self.attributes.saturating_add(bytes);
            if self.attributes > MAX_ATTRIBUTES {
                return nonsense(format!(
                    "the extended attributes of all files take more than {MAX_ATTRIBUTES} bytes"
                ));
            }
        }
        Ok(Metadata {
            mtime: Timestamp {
                seconds: inode.mtime.seconds,
                nanoseconds: inode.mtime.nanos,
            },
            uid: inode.uid,
            gid: inode.gid,
            permissions: inode.i_mode & 0o7777,
            xattrs,
            flags: InodeFlags::empty(),
        })
    }

    /// Reads a directory's names and makes the nodes of those that are new.
    /// Returns how many names there are.
    fn directory(&mut self, number: u32, node: NodeId) -> Read<u64> {
        let mut names = self.names(number)?;
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0].0 == pair[1].0);
        if let Some([(name, _), _]) = twice {
            return nonsense(format!(
                "inode {number} has the name {:?} twice",
                String::from_utf8_lossy(name)
            ));
        }
        let mut entries = Vec::with_capacity(names.len());
        let below = self.pending.len();
        for (name, child) in &names {
            let known = self.known.get(child).copied();
            let node = match known {
                Some(node) if self.tree.directory(node).is_some() => {
                    return nonsense(format!(
                        "the directory of inode {child} has a second name, {:?}",
                        String::from_utf8_lossy(name)
                    ));
                }
                Some(node) => node,
                None => self.node(*child).map_err(|fault| named(fault, name))?,
            };
            entries.push(Entry {
                name: self.tree.add_name(name)?,
                node,
            });
        }
        // First names first.
        self.pending[below..].reverse();
        self.tree.set_entries(node, entries);
        Ok(names.len() as u64)
    }

    fn node(&mut self, number: u32) -> Read<NodeId> {
        let (inode, attributes) = self.inode(number)?;
        let kind = match inode.kind() {
            None => {
                return nonsense(format!(
                    "inode {number}: mode {:o} names no type",
                    inode.i_mode
                ))
            }
            Some(inode::Kind::Directory) => {
                let metadata = self.metadata(&inode, attributes)?;
                let node = self.tree.add_directory(metadata)?;
                self.known.insert(number, node);
                self.pending.push((number, node));
                return Ok(node);
            }
            Some(inode::Kind::Regular) => {
                if i64::try_from(inode.size).is_err() {
                    return nonsense(format!("inode {number} has {} bytes", inode.size));
                }
                Kind::File {
                    size: inode.size,
                    // What the tree of an image calls a content is the inode.
                    content: ContentId::new(number),
                }
            }
            Some(inode::Kind::Symlink) => {
                let target = self.target(number, &inode, &attributes)?;
                Kind::Symlink(self.tree.add_name(&target)?)
            }
            Some(inode::Kind::CharDevice) => Kind::CharDevice(device(&inode)),
            Some(inode::Kind::BlockDevice) => Kind::BlockDevice(device(&inode)),
            Some(inode::Kind::Fifo) => Kind::Fifo,
            Some(inode::Kind::Socket) => Kind::Socket,
        };
        let metadata = self.metadata(&inode, attributes)?;
        let node = self.tree.add_node(Node {
            kind,
            metadata,
            links: 0,
        })?;
        self.known.insert(number, node);
        Ok(node)
    }

    /// It ends at its first NUL, as for every program (`nd_terminate_link`).
    fn target(&self, number: u32, inode: &Inode, attributes: &Attributes) -> Read<Vec<u8>> {
        if inode.size == 0 || inode.size > MAX_TARGET {
            return nonsense(format!(
                "the symlink of inode {number} has a target of {} bytes",
                inode.size
            ));
        }
        // OK to convert: not above MAX_TARGET.
        let size = inode.size as usize;
        let mut target = if inode.is_fast_symlink() {
            inode.i_block.get(..size).map(<[u8]>::to_vec)
        } else if let Some(bytes) = files::inline(inode, attributes) {
            bytes.get(..size).map(<[u8]>::to_vec)
        } else {
            let map = files::Map::of(self.fs, number, inode)?;
            let mut target = vec![0; size];
            map.read(self.fs, 0, &mut target)?;
            Some(target)
        }
        .unwrap_or_default();
        let end = target.iter().position(|&byte| byte == 0);
        target.truncate(end.unwrap_or(target.len()));
        if target.is_empty() {
            return nonsense(format!("the symlink of inode {number} has an empty target"));
        }
        Ok(target)
    }

    /// The names of a directory but "." and "..", with their inodes. Blocks of
    /// an index look like free records, as they do to older kernels.
    fn names(&mut self, number: u32) -> Read<Vec<(Vec<u8>, u32)>> {
        let raw = self.fs.raw_inode(number)?;
        let Some(inode) = Inode::decode(&raw) else {
            return nonsense(format!("inode {number} is too short"));
        };
        let mut block = vec![0; self.fs.geometry.block_size as usize];
        let mut names = Vec::new();
        if inode.has(flags::INLINE_DATA) {
            let attributes = attributes::read(self.fs, number, &inode, &raw)?;
            // The number of its parent, then records; and records without one.
            records(number, &inode.i_block[4..], block.len(), &mut names)?;
            let more = attributes.inline.as_deref().unwrap_or_default();
            records(number, more, block.len(), &mut names)?;
            return Ok(names);
        }
        let map = files::Map::of(self.fs, number, &inode)?;
        let size = u64::from(self.fs.geometry.block_size);
        for run in map.runs() {
            for at in 0..run.len {
                if (run.logical + at).saturating_mul(size) >= inode.size {
                    return Ok(names);
                }
                let place = run.physical + at;
                if !self.blocks.insert(place) {
                    return nonsense(format!(
                        "block {place} of inode {number} is another directory's block as well"
                    ));
                }
                self.fs.read_block(place, &mut block)?;
                records(number, &block, block.len(), &mut names)?;
            }
        }
        Ok(names)
    }
}

fn named(fault: Fault, name: &[u8]) -> Fault {
    match fault {
        Fault::Nonsense(text) => {
            Fault::Nonsense(format!("{:?}: {text}", String::from_utf8_lossy(name)))
        }
        host => host,
    }
}

fn device(inode: &Inode) -> Device {
    let (major, minor) = inode.device();
    Device { major, minor }
}

/// Adds the names of a block, or of a part of one that has `block_len` bytes.
fn records(
    number: u32,
    block: &[u8],
    block_len: usize,
    names: &mut Vec<(Vec<u8>, u32)>,
) -> Read<()> {
    let mut at = 0;
    while at < block.len() {
        let record = dirent::decode(block, at, block_len)
            .filter(|record| dirent::is_possible(record, at, block.len()));
        let Some(record) = record else {
            return nonsense(format!(
                "the directory of inode {number} has a record that cannot be, at byte {at} of a block"
            ));
        };
        at += record.rec_len;
        if record.inode == 0 || matches!(record.name, b"." | b"..") {
            continue;
        }
        // The kernel gives no such name to any program (`verify_dirent_name`).
        if record.name.is_empty() || record.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return nonsense(format!(
                "the directory of inode {number} has the name {:?}",
                String::from_utf8_lossy(record.name)
            ));
        }
        names.push((record.name.to_vec(), record.inode));
    }
    Ok(())
}
