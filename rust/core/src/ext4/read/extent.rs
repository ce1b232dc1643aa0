//! Extent trees (`struct ext4_extent_header` and what follows it).

use super::bytes::{hilo, u16_at, u32_at};
use super::checksum::crc32c;

/// `EXT4_EXT_MAGIC`
pub const MAGIC: u16 = 0xf30a;
/// Bytes of a header and of each entry.
pub const ENTRY_SIZE: usize = 12;
/// `EXT4_MAX_EXTENT_DEPTH`
pub const MAX_DEPTH: u16 = 5;
/// `EXT_INIT_MAX_LEN`: a length above it is that of an unwritten extent.
const INIT_MAX_LEN: u16 = 32768;

/// `struct ext4_extent_header`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`MAGIC`]
    pub eh_magic: u16,
    /// Entries that are used.
    pub eh_entries: u16,
    /// Entries that there is room for.
    pub eh_max: u16,
    /// Levels below this one.
    pub eh_depth: u16,
}

impl Header {
    /// `None` when there is no room for one.
    #[must_use]
    pub fn decode(node: &[u8]) -> Option<Self> {
        (node.len() >= ENTRY_SIZE).then(|| Self {
            eh_magic: u16_at(node, 0),
            eh_entries: u16_at(node, 2),
            eh_max: u16_at(node, 4),
            eh_depth: u16_at(node, 6),
        })
    }

    /// Whether magic, numbers and depth are possible in a node of that many
    /// bytes (`ext4_ext_check`).
    #[must_use]
    pub const fn is_possible(&self, node_len: usize) -> bool {
        self.eh_magic == MAGIC
            && self.eh_depth <= MAX_DEPTH
            && self.eh_max != 0
            && self.eh_entries <= self.eh_max
            && (self.eh_max as usize + 1) * ENTRY_SIZE <= node_len
    }
}

/// `struct ext4_extent`: an entry of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block within the file.
    pub logical: u32,
    /// First block on the disk.
    pub physical: u64,
    /// Blocks.
    pub len: u16,
    /// Reads as zeros.
    pub unwritten: bool,
}

/// `struct ext4_extent_idx`: an entry of an inner node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// First block within the file that is below.
    pub logical: u32,
    /// The node's block.
    pub block: u64,
}

/// Entry `number` of a leaf; `None` behind its end.
#[must_use]
pub fn extent(node: &[u8], number: usize) -> Option<Extent> {
    let raw = entry(node, number)?;
    let len = u16_at(raw, 4);
    let unwritten = len > INIT_MAX_LEN;
    Some(Extent {
        logical: u32_at(raw, 0),
        physical: hilo(u16_at(raw, 6).into(), u32_at(raw, 8)),
        len: if unwritten { len - INIT_MAX_LEN } else { len },
        unwritten,
    })
}

/// Entry `number` of an inner node; `None` behind its end.
#[must_use]
pub fn index(node: &[u8], number: usize) -> Option<Index> {
    let raw = entry(node, number)?;
    Some(Index {
        logical: u32_at(raw, 0),
        block: hilo(u16_at(raw, 8).into(), u32_at(raw, 4)),
    })
}

fn entry(node: &[u8], number: usize) -> Option<&[u8]> {
    let at = number.checked_add(1)?.checked_mul(ENTRY_SIZE)?;
    node.get(at..at.checked_add(ENTRY_SIZE)?)
}

/// The stored and the computed checksum of a node that is a block
/// (`ext4_extent_block_csum`), `seed` being that of the inode; `None` when
/// `eh_max` leaves no room for one.
#[must_use]
pub fn checksums(node: &[u8], seed: u32) -> Option<(u32, u32)> {
    let at = (usize::from(Header::decode(node)?.eh_max) + 1) * ENTRY_SIZE;
    let tail = node.get(at..at + 4)?;
    Some((u32_at(tail, 0), crc32c(seed, &node[..at])))
}
