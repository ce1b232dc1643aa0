//! Quota files: the radix tree that the kernel calls `vfsv1` (`quota_tree.h`,
//! `quotaio_v2.h`), in blocks of 1,024 bytes whatever the file system's are.

use super::bytes::{u32_at, u64_at};

/// Bytes of a block of the tree (`1 << V2_DQBLKSIZE_BITS`).
pub const BLOCK_SIZE: usize = 1024;
/// The block with the tree's root (`QT_TREEOFF`).
pub const ROOT: u32 = 1;
/// Levels of references, a byte of the number each, the highest first.
pub const DEPTH: usize = 4;
/// Bytes before the entries of a leaf (`struct qt_disk_dqdbheader`).
const LEAF_HEADER_SIZE: usize = 16;

/// Whom usage is told for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Owners.
    User,
    /// Groups.
    Group,
    /// Projects.
    Project,
}

impl Kind {
    /// All of them, in the kernel's order.
    pub const ALL: [Self; 3] = [Self::User, Self::Group, Self::Project];

    /// `V2_INITQMAGICS`
    #[must_use]
    pub const fn magic(self) -> u32 {
        match self {
            Self::User => 0xd9c0_1f11,
            Self::Group => 0xd9c0_1927,
            Self::Project => 0xd9c0_3f14,
        }
    }

    /// A noun.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Project => "project",
        }
    }
}

/// `struct v2_disk_dqheader` and `struct v2_disk_dqinfo`, which begin the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// See [`Kind::magic`].
    pub dqh_magic: u32,
    /// 0 or 1: how entries look.
    pub dqh_version: u32,
    /// Blocks of the tree, those before its root among them.
    pub dqi_blocks: u32,
    /// First of the list of free blocks, or 0.
    pub dqi_free_blk: u32,
    /// First of the list of leaves with room, or 0.
    pub dqi_free_entry: u32,
}

impl Header {
    /// Takes the fields as they are.
    #[must_use]
    pub fn decode(raw: &[u8; BLOCK_SIZE]) -> Self {
        Self {
            dqh_magic: u32_at(raw, 0),
            dqh_version: u32_at(raw, 4),
            dqi_blocks: u32_at(raw, 20),
            dqi_free_blk: u32_at(raw, 24),
            dqi_free_entry: u32_at(raw, 28),
        }
    }
}

/// What a leaf tells of a user, group or project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub id: u32,
    /// Bytes in use.
    pub space: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// The references in a block above the leaves; 0 is none.
pub fn references(raw: &[u8; BLOCK_SIZE]) -> impl Iterator<Item = u32> + '_ {
    raw.chunks_exact(4).map(|raw| u32_at(raw, 0))
}

/// The entries of a leaf. Those of zeros only are none (`qtree_entry_unused`).
pub fn entries(raw: &[u8; BLOCK_SIZE], version: u32) -> impl Iterator<Item = Entry> + '_ {
    // struct v2r0_disk_dqblk, struct v2r1_disk_dqblk
    let size = if version == 0 { 48 } else { 72 };
    raw[LEAF_HEADER_SIZE..]
        .chunks_exact(size)
        .filter(|raw| raw.iter().any(|byte| *byte != 0))
        .map(move |raw| Entry {
            id: u32_at(raw, 0),
            space: u64_at(raw, if version == 0 { 24 } else { 48 }),
            inodes: if version == 0 {
                u32_at(raw, 12).into()
            } else {
                u64_at(raw, 24)
            },
        })
}
