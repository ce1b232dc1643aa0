//! Directory records (`struct ext4_dir_entry_2`) and the tail of a block of them.

use super::bytes::{u16_at, u32_at};
use super::checksum::crc32c;

/// Bytes of a record before its name.
pub const HEADER_SIZE: usize = 8;
/// Bytes of `struct ext4_dir_entry_tail`.
pub const TAIL_SIZE: usize = 12;
/// `EXT4_FT_DIR_CSUM`
const TAIL_FILE_TYPE: u8 = 0xde;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// 0: free.
    pub inode: u32,
    /// Bytes up to the next record.
    pub rec_len: usize,
    /// Bytes of the name, as told.
    pub name_len: u8,
    /// `EXT4_FT_*`; the high byte of the name's length without `filetype`.
    pub file_type: u8,
    /// The name, cut where the record or the block ends.
    pub name: &'a [u8],
}

/// Bytes that a record with such a name needs (`ext4_dir_rec_len`).
#[must_use]
pub const fn needed(name_len: usize) -> usize {
    (HEADER_SIZE + name_len + 3) & !3
}

/// The record at byte `at`, as told; `None` when no header fits there. `block`
/// may be a part of a block, of which `block_len` is the whole length.
#[must_use]
pub fn decode(block: &[u8], at: usize, block_len: usize) -> Option<Dirent<'_>> {
    let raw = block.get(at..)?;
    if raw.len() < HEADER_SIZE {
        return None;
    }
    let rec_len = rec_len(u16_at(raw, 4), block_len);
    let name_len = raw[6];
    let end = raw.len().min(HEADER_SIZE + usize::from(name_len));
    let end = end.min(rec_len.max(HEADER_SIZE));
    Some(Dirent {
        inode: u32_at(raw, 0),
        rec_len,
        name_len,
        file_type: raw[7],
        name: &raw[HEADER_SIZE..end],
    })
}

/// `ext4_rec_len_from_disk`: in blocks of 64 KiB the two low bits are high ones,
/// and 65,535 and 0 mean the whole block.
const fn rec_len(told: u16, block_len: usize) -> usize {
    let told = told as usize;
    if block_len < 65536 {
        return told;
    }
    if told == 65535 || told == 0 {
        return block_len;
    }
    (told & 65532) | ((told & 3) << 16)
}

/// Whether a record may be what it says (`ext4_check_dir_entry`, without the
/// inode's number).
#[must_use]
pub const fn is_possible(record: &Dirent<'_>, at: usize, block_len: usize) -> bool {
    record.rec_len >= HEADER_SIZE + 4
        && record.rec_len.is_multiple_of(4)
        && record.rec_len <= block_len - at
        && needed(record.name_len as usize) <= record.rec_len
}

/// Whether the block ends with what a tail looks like: a free record of 12
/// bytes, no name, and the type that means "checksum".
#[must_use]
pub fn has_tail(block: &[u8]) -> bool {
    let Some(at) = block.len().checked_sub(TAIL_SIZE) else {
        return false;
    };
    let tail = &block[at..];
    u32_at(tail, 0) == 0
        && u16_at(tail, 4) == TAIL_SIZE as u16
        && tail[6] == 0
        && tail[7] == TAIL_FILE_TYPE
}

/// The stored and the computed checksum of a block that has a tail
/// (`ext4_dirblock_csum`), `seed` being that of the directory's inode.
#[must_use]
pub fn checksums(block: &[u8], seed: u32) -> Option<(u32, u32)> {
    let at = block.len().checked_sub(TAIL_SIZE)?;
    Some((u32_at(block, at + 8), crc32c(seed, &block[..at])))
}
