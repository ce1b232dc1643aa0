//! Hashed directories: `struct dx_root`, `struct dx_node`.

use super::bytes::{u16_at, u32_at};
use super::checksum::crc32c;

/// Where a node's index begins: behind one free record that fills the block.
pub const NODE_OFFSET: usize = 8;
/// Where `struct dx_root_info` is.
pub const INFO_AT: usize = 24;
/// Bytes of an entry, and of `struct dx_tail`.
pub const ENTRY_SIZE: usize = 8;
/// The bits of `block` that are one.
pub const BLOCK_MASK: u32 = 0x0fff_ffff;

/// `struct dx_root_info`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootInfo {
    /// 0.
    pub reserved_zero: u32,
    /// How names are hashed.
    pub hash_version: u8,
    /// Bytes of this; 8.
    pub info_length: u8,
    /// Levels between root and leaves.
    pub indirect_levels: u8,
    /// Bit 0 is in no use.
    pub unused_flags: u8,
}

impl RootInfo {
    /// Of a directory's first block.
    #[must_use]
    pub fn decode(block: &[u8]) -> Option<Self> {
        let raw = block.get(INFO_AT..INFO_AT + 8)?;
        Some(Self {
            reserved_zero: u32_at(raw, 0),
            hash_version: raw[4],
            info_length: raw[5],
            indirect_levels: raw[6],
            unused_flags: raw[7],
        })
    }

    /// Where the root's index begins.
    #[must_use]
    pub const fn index_at(&self) -> usize {
        INFO_AT + self.info_length as usize
    }
}

/// An index: of the root at [`RootInfo::index_at`], of a node at [`NODE_OFFSET`].
#[derive(Clone, Copy, Debug)]
pub struct Index<'a> {
    raw: &'a [u8],
    at: usize,
    /// Entries that there is room for, as told.
    pub limit: u16,
    /// Entries that are used, as told.
    pub count: u16,
}

/// `struct dx_entry`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Least hash below; bit 0: the block before ends with the same one.
    /// Without meaning (limit and count) in the first entry.
    pub hash: u32,
    /// Block within the directory.
    pub block: u32,
}

impl<'a> Index<'a> {
    /// `None` when there is no room for an entry.
    #[must_use]
    pub fn decode(block: &'a [u8], at: usize) -> Option<Self> {
        let raw = block.get(at..at.checked_add(ENTRY_SIZE)?)?;
        Some(Self {
            raw: block,
            at,
            limit: u16_at(raw, 0),
            count: u16_at(raw, 2),
        })
    }

    /// `None` behind the block's end.
    #[must_use]
    pub fn entry(&self, number: usize) -> Option<Entry> {
        let at = self.at.checked_add(number.checked_mul(ENTRY_SIZE)?)?;
        let raw = self.raw.get(at..at.checked_add(ENTRY_SIZE)?)?;
        Some(Entry {
            hash: u32_at(raw, 0),
            block: u32_at(raw, 4) & BLOCK_MASK,
        })
    }

    /// The limit that the block's size gives, with or without room for a tail.
    #[must_use]
    pub const fn right_limit(&self, with_tail: bool) -> usize {
        let room = self.raw.len() - self.at;
        (room - if with_tail { ENTRY_SIZE } else { 0 }) / ENTRY_SIZE
    }

    /// The stored and the computed checksum (`ext4_dx_csum`), `seed` being that
    /// of the directory's inode: over what is used, and the tail, with zeros in
    /// the sum's place. `None` when limit and count leave no room for them.
    #[must_use]
    pub fn checksums(&self, seed: u32) -> Option<(u32, u32)> {
        let tail_at = self.at + usize::from(self.limit) * ENTRY_SIZE;
        let tail = self.raw.get(tail_at..tail_at + ENTRY_SIZE)?;
        let used = self
            .raw
            .get(..self.at + usize::from(self.count) * ENTRY_SIZE)?;
        let register = crc32c(crc32c(seed, used), &tail[..4]);
        Some((u32_at(tail, 4), crc32c(register, &[0; 4])))
    }
}
