//! Extended attributes: `struct ext4_xattr_entry` in an inode or in a block
//! with a `struct ext4_xattr_header`.

use super::bytes::{u16_at, u32_at};
use super::checksum::crc32c;

/// `EXT4_XATTR_MAGIC`
pub const MAGIC: u32 = 0xea02_0000;
/// Bytes of a block's header.
pub const BLOCK_HEADER_SIZE: usize = 32;
/// Bytes of the magic number before attributes in an inode.
pub const INODE_HEADER_SIZE: usize = 4;
/// Bytes of an entry before its name.
pub const ENTRY_SIZE: usize = 16;

/// `struct ext4_xattr_header`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`MAGIC`]
    pub h_magic: u32,
    /// Inodes that share the block.
    pub h_refcount: u32,
    /// Blocks; 1.
    pub h_blocks: u32,
    /// Hash of all entries.
    pub h_hash: u32,
    /// See [`block_checksum`].
    pub h_checksum: u32,
}

impl Header {
    /// `None` when the block is too short for one.
    #[must_use]
    pub fn decode(block: &[u8]) -> Option<Self> {
        (block.len() >= BLOCK_HEADER_SIZE).then(|| Self {
            h_magic: u32_at(block, 0),
            h_refcount: u32_at(block, 4),
            h_blocks: u32_at(block, 8),
            h_hash: u32_at(block, 12),
            h_checksum: u32_at(block, 16),
        })
    }
}

/// `ext4_xattr_block_csum`: over the block's number and bytes with zeros in the
/// sum's place; `seed` is the file system's.
#[must_use]
pub fn block_checksum(number: u64, block: &[u8], seed: u32) -> u32 {
    let register = crc32c(crc32c(seed, &number.to_le_bytes()), &block[..16]);
    crc32c(crc32c(register, &[0; 4]), &block[20..])
}

/// `struct ext4_xattr_entry`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Which prefix the name has, see [`prefix`].
    pub e_name_index: u8,
    /// The name behind the prefix.
    pub name: &'a [u8],
    /// Where the value is: from a block's begin, or an inode's first entry.
    pub e_value_offs: u16,
    /// The inode that holds the value, or 0.
    pub e_value_inum: u32,
    /// Bytes of the value.
    pub e_value_size: u32,
    /// Hash of name and value.
    pub e_hash: u32,
    /// Where the entry is in what was decoded.
    pub at: usize,
}

impl Entry<'_> {
    /// Bytes it takes.
    #[must_use]
    pub const fn len(&self) -> usize {
        padded(ENTRY_SIZE + self.name.len())
    }

    /// Never: it has a header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// Lengths are multiples of four (`EXT4_XATTR_LEN`, `EXT4_XATTR_SIZE`).
#[must_use]
pub const fn padded(len: usize) -> usize {
    (len + 3) & !3
}

/// The entry at byte `at`. `Ok(None)` at the list's end (four zero bytes).
///
/// # Errors
/// When it does not fit before the end of `raw`: then there is no next one.
pub fn entry(raw: &[u8], at: usize) -> Result<Option<Entry<'_>>, OutOfRoom> {
    let rest = raw.get(at..).filter(|rest| rest.len() >= 4);
    let rest = rest.ok_or(OutOfRoom)?;
    if u32_at(rest, 0) == 0 {
        return Ok(None);
    }
    if rest.len() < ENTRY_SIZE {
        return Err(OutOfRoom);
    }
    let name = rest.get(ENTRY_SIZE..ENTRY_SIZE + usize::from(rest[0]));
    Ok(Some(Entry {
        e_name_index: rest[1],
        name: name.ok_or(OutOfRoom)?,
        e_value_offs: u16_at(rest, 2),
        e_value_inum: u32_at(rest, 4),
        e_value_size: u32_at(rest, 8),
        e_hash: u32_at(rest, 12),
        at,
    }))
}

/// An entry reaches behind the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRoom;

/// What stands before the names of an index (`ext4_xattr_handler_map`).
#[must_use]
pub const fn prefix(index: u8) -> Option<&'static str> {
    Some(match index {
        1 => "user.",
        2 => "system.posix_acl_access",
        3 => "system.posix_acl_default",
        4 => "trusted.",
        6 => "security.",
        7 => "system.",
        8 => "system.richacl",
        // Of encryption's context: no program sees it.
        9 => "c",
        _ => return None,
    })
}

/// `ext4_xattr_hash_entry`: over the name's bytes, unsigned, and `words` of the
/// value.
#[must_use]
pub fn entry_hash(name: &[u8], words: impl Iterator<Item = u32>) -> u32 {
    let named = name
        .iter()
        .fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    words.fold(named, |hash, word| hash.rotate_left(16) ^ word)
}

/// `ext4_xattr_hash_entry_signed`, of kernels that took names for signed chars.
#[must_use]
pub fn entry_hash_signed(name: &[u8], words: impl Iterator<Item = u32>) -> u32 {
    let named = name.iter().fold(0u32, |hash, &byte| {
        let signed = i32::from(byte.cast_signed());
        hash.rotate_left(5) ^ signed.cast_unsigned()
    });
    words.fold(named, |hash, word| hash.rotate_left(16) ^ word)
}

/// A value's padded words, as they are hashed.
pub fn value_words(value: &[u8]) -> impl Iterator<Item = u32> + '_ {
    value.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    })
}

/// The hash of a value in an inode of its own (`ext4_xattr_inode_hash`).
#[must_use]
pub fn value_hash(value: &[u8], seed: u32) -> u32 {
    crc32c(seed, value)
}
