//! Extent trees: `struct ext4_extent_header`, `ext4_extent_idx`,
//! `ext4_extent`, 12 bytes each.

use super::checksum::Checksum;
use super::{high32, low16, low32, put_u16, put_u32, BlockSize};

/// Records in `i_block` behind its header.
pub const INLINE_RECORDS: usize = 4;
/// Blocks an extent may have; above that the length means "unwritten"
/// (`EXT_INIT_MAX_LEN`).
pub const MAX_EXTENT_BLOCKS: u32 = 1 << 15;

const MAGIC: u16 = 0xf30a;

/// Records in a block behind its header; the 4 bytes or more that are left at
/// the end have the checksum.
#[must_use]
pub const fn block_records(block: BlockSize) -> usize {
    records(block.size())
}

const fn records(bytes: usize) -> usize {
    (bytes - 12) / 12
}

/// Blocks of a file that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block within the file.
    pub logical: u32,
    /// How many, 1 to [`MAX_EXTENT_BLOCKS`].
    pub len: u32,
    /// First block in the image.
    pub start: u64,
}

/// A node one level down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// First block within the file that lies below that node.
    pub logical: u32,
    /// The node's block in the image.
    pub block: u64,
}

fn put_header(raw: &mut [u8], entries: usize, max: usize, depth: u16) {
    put_u16(raw, 0, MAGIC); // eh_magic
    put_u16(raw, 2, entries as u16); // eh_entries
    put_u16(raw, 4, max as u16); // eh_max
    put_u16(raw, 6, depth); // eh_depth
}

fn put_extent(raw: &mut [u8], extent: &Extent) {
    put_u32(raw, 0, extent.logical); // ee_block
    put_u16(raw, 4, low16(extent.len)); // ee_len: 32,768 is a full initialised one
    put_u16(raw, 6, low16(high32(extent.start))); // ee_start_hi
    put_u32(raw, 8, low32(extent.start)); // ee_start_lo
}

fn put_index(raw: &mut [u8], index: &Index) {
    put_u32(raw, 0, index.logical); // ei_block
    put_u32(raw, 4, low32(index.block)); // ei_leaf_lo
    put_u16(raw, 8, low16(high32(index.block))); // ei_leaf_hi
}

/// The root in `i_block`, of at most [`INLINE_RECORDS`] extents.
#[must_use]
pub fn encode_root_leaf(extents: impl ExactSizeIterator<Item = Extent>) -> [u8; 60] {
    let mut raw = [0; 60];
    put_header(&mut raw, extents.len(), INLINE_RECORDS, 0);
    for (slot, extent) in raw[12..].chunks_exact_mut(12).zip(extents) {
        put_extent(slot, &extent);
    }
    raw
}

/// The root in `i_block`, of at most [`INLINE_RECORDS`] nodes below it.
#[must_use]
pub fn encode_root_index(nodes: impl ExactSizeIterator<Item = Index>, depth: u16) -> [u8; 60] {
    let mut raw = [0; 60];
    put_header(&mut raw, nodes.len(), INLINE_RECORDS, depth);
    for (slot, node) in raw[12..].chunks_exact_mut(12).zip(nodes) {
        put_index(slot, &node);
    }
    raw
}

/// A block of extents. `seed` is that of the inode.
pub fn encode_leaf_block(
    raw: &mut [u8],
    extents: impl ExactSizeIterator<Item = Extent>,
    seed: Checksum,
) {
    let max = records(raw.len());
    put_header(raw, extents.len(), max, 0);
    for (slot, extent) in raw[12..].chunks_exact_mut(12).zip(extents) {
        put_extent(slot, &extent);
    }
    put_tail(raw, seed);
}

/// A block of nodes below it. `seed` is that of the inode.
pub fn encode_index_block(
    raw: &mut [u8],
    nodes: impl ExactSizeIterator<Item = Index>,
    depth: u16,
    seed: Checksum,
) {
    let max = records(raw.len());
    put_header(raw, nodes.len(), max, depth);
    for (slot, node) in raw[12..].chunks_exact_mut(12).zip(nodes) {
        put_index(slot, &node);
    }
    put_tail(raw, seed);
}

/// `struct ext4_extent_tail`: over header and all slots, used or not.
fn put_tail(raw: &mut [u8], seed: Checksum) {
    let end = 12 + 12 * records(raw.len());
    let checksum = seed.bytes(&raw[..end]).value();
    put_u32(raw, end, checksum); // et_checksum
}

const _: () = assert!(12 + 12 * records(1024) + 4 <= 1024);
const _: () = assert!(12 + 12 * records(2048) + 4 <= 2048);
const _: () = assert!(12 + 12 * records(4096) + 4 <= 4096);
