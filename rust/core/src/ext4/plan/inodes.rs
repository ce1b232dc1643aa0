//! Inodes of the tree and of the file system itself.

use super::encode::encode_tree_root;
use super::run::Run;
use super::{validate, Plan};
use crate::ext4::format::checksum::Checksum;
use crate::ext4::format::inode::{
    device_block, fast_symlink, mode, AttributeValue, Inode, InodeFlags, FAST_SYMLINK_MAX,
};
use crate::ext4::format::put_u32;
use crate::ext4::format::xattr::{encode_in_inode, value_hash, ValueId, ValueInode};
use crate::tree::{self, Kind, NodeId};

impl Plan<'_> {
    /// The inode of a visible node.
    pub(super) fn inode(&self, node: NodeId) -> Inode {
        let Plan { tree, .. } = self;
        let known = tree.node(node);
        let meta = &known.metadata;
        let (extents, tree_runs) = self.extents_of(node);
        let mut inode = Inode {
            mode: meta.permissions,
            uid: meta.uid,
            gid: meta.gid,
            size: 0,
            time: meta.mtime,
            // At most LINK_MAX: validated.
            links: known.links as u16,
            blocks: blocks(extents) + blocks(tree_runs),
            flags: wished_flags(meta.flags),
            block: [0; 60],
            xattr_block: self.attributes.block_of(node),
            xattrs: encode_in_inode(self.attributes.in_inode(meta.xattrs), |value| {
                self.value_place(value)
            }),
            value: None,
        };
        // Each inode that shares a block of attributes is charged for it.
        if inode.xattr_block != 0 {
            inode.blocks += 1;
        }
        inode.blocks += self.attributes.value_blocks(meta.xattrs);
        let device = |device| device_block(device).unwrap_or([0; 60]); // validated
        match known.kind {
            Kind::Directory(_) => {
                inode.mode |= mode::DIRECTORY;
                inode.links = self.directory_links(node);
                inode.size = self.block_size.bytes_of(blocks(extents));
                inode
                    .flags
                    .set(InodeFlags::INDEX, self.directories.is_hashed(node));
                self.map_by_extents(&mut inode, extents, tree_runs);
            }
            Kind::File { size, .. } => {
                inode.mode |= mode::REGULAR;
                inode.size = size;
                self.map_by_extents(&mut inode, extents, tree_runs);
            }
            Kind::Symlink(target) => {
                inode.mode |= mode::SYMLINK;
                inode.size = target.len() as u64;
                if target.len() <= FAST_SYMLINK_MAX {
                    inode.block = fast_symlink(tree.name(target));
                } else {
                    self.map_by_extents(&mut inode, extents, tree_runs);
                }
            }
            Kind::CharDevice(number) => {
                inode.mode |= mode::CHAR_DEVICE;
                inode.block = device(number);
            }
            Kind::BlockDevice(number) => {
                inode.mode |= mode::BLOCK_DEVICE;
                inode.block = device(number);
            }
            Kind::Fifo => inode.mode |= mode::FIFO,
            Kind::Socket => inode.mode |= mode::SOCKET,
        }
        inode
    }

    fn map_by_extents(&self, inode: &mut Inode, extents: &[Run], tree_runs: &[Run]) {
        inode.flags |= InodeFlags::EXTENTS;
        inode.block = encode_tree_root(extents, tree_runs, self.block_size);
    }

    /// "." and the name (or, for the root, ".."), and ".." of each
    /// subdirectory. Above the limit the number is 1 (`dir_nlink`,
    /// `ext4_inc_count` as of today: at the limit it is still told).
    fn directory_links(&self, node: NodeId) -> u16 {
        let entries = self
            .tree
            .directory(node)
            .map_or(&[][..], |directory| &directory.entries);
        let is_directory = |id: NodeId| matches!(self.tree.node(id).kind, Kind::Directory(_));
        let below = entries
            .iter()
            .filter(|entry| is_directory(entry.node))
            .count();
        let ours = usize::from(self.lost_and_found && node == self.tree.root());
        let links = 2 + below + ours;
        u16::try_from(links)
            .ok()
            .filter(|&links| u32::from(links) <= validate::LINK_MAX)
            .unwrap_or(1)
    }

    fn own_inode(&self, mode: u16) -> Inode {
        Inode {
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            time: self.time,
            links: 1,
            blocks: 0,
            flags: InodeFlags::empty(),
            block: [0; 60],
            xattr_block: 0,
            xattrs: None,
            value: None,
        }
    }

    pub(super) fn lost_and_found_inode(&self) -> Inode {
        let runs = self.layout.lost_and_found_runs();
        Inode {
            links: 2,
            size: self.block_size.bytes_of(blocks(runs)),
            blocks: blocks(runs),
            flags: InodeFlags::EXTENTS,
            block: encode_tree_root(runs, &[], self.block_size),
            ..self.own_inode(mode::DIRECTORY | 0o700)
        }
    }

    pub(super) fn journal_inode(&self) -> Inode {
        let (_, tree_runs) = self.journal_runs();
        Inode {
            size: self.block_size.bytes_of(u64::from(self.journal)),
            blocks: u64::from(self.journal) + blocks(tree_runs),
            flags: InodeFlags::EXTENTS,
            block: self.journal_map(),
            ..self.own_inode(mode::REGULAR | 0o600)
        }
    }

    /// The inode with an attribute's value, as entries name it.
    pub(super) fn value_place(&self, value: ValueId) -> ValueInode {
        ValueInode {
            number: self.numbers.of_value(value),
            hash: self.value_hash(value),
        }
    }

    fn value_hash(&self, value: ValueId) -> u32 {
        // The UUID's seed, whether other metadata has checksums or not.
        let seed = Checksum::seed(&self.uuid);
        value_hash(seed, &self.attributes.values()[value.0 as usize].bytes)
    }

    /// The inode with an attribute's value (`ext4_xattr_inode_create`).
    pub(super) fn value_inode(&self, value: ValueId) -> Inode {
        let runs = self.layout.value_runs(value);
        let known = &self.attributes.values()[value.0 as usize];
        Inode {
            size: known.bytes.len() as u64,
            blocks: blocks(runs),
            flags: InodeFlags::EXTENTS | InodeFlags::EA_INODE,
            block: encode_tree_root(runs, &[], self.block_size),
            value: Some(AttributeValue {
                hash: self.value_hash(value),
                references: known.references,
            }),
            ..self.own_inode(mode::REGULAR | 0o600)
        }
    }

    /// The inode that keeps the reserved descriptor blocks and their backups,
    /// by way of one double indirect block (`ext2fs_create_resize_inode`).
    pub(super) fn resize_inode(&self) -> Inode {
        const DOUBLE_INDIRECT: usize = 13;
        let pointers = u64::from(self.block_size.pointers());
        let copies = 1 + self.geometry.backup_groups().count() as u64;
        let mut block = [0; 60];
        // It has no extents and so 32 bits; it lies in the first flex group.
        put_u32(
            &mut block,
            DOUBLE_INDIRECT * 4,
            self.layout.resize_block as u32,
        );
        Inode {
            size: self
                .block_size
                .bytes_of(12 + pointers + pointers * pointers),
            blocks: 1 + u64::from(self.geometry.reserved_descriptor_blocks) * copies,
            block,
            ..self.own_inode(mode::REGULAR | 0o600)
        }
    }
}

fn wished_flags(wished: tree::InodeFlags) -> InodeFlags {
    let mut flags = InodeFlags::empty();
    for (theirs, ours) in [
        (tree::InodeFlags::IMMUTABLE, InodeFlags::IMMUTABLE),
        (tree::InodeFlags::APPEND, InodeFlags::APPEND),
        (tree::InodeFlags::NODUMP, InodeFlags::NODUMP),
        (tree::InodeFlags::NOATIME, InodeFlags::NOATIME),
    ] {
        flags.set(ours, wished.contains(theirs));
    }
    flags
}

fn blocks(runs: &[Run]) -> u64 {
    runs.iter().map(|run| u64::from(run.len)).sum()
}
