//! ext4 on disk: one noun per file, encoding without policy.
//!
//! Policy of this module: fields are put at their byte offsets, little endian,
//! by [`put_u16`] and its kin (the journal is big endian, and says so). The
//! offsets and names are the kernel's, from `fs/ext4/ext4.h`, `ext4_extents.h`
//! and `xattr.h`, and from `include/linux/jbd2.h`.

mod block_size;
pub mod checksum;
pub mod dirent;
pub mod extent;
pub mod features;
pub mod group_desc;
pub mod htree;
pub mod inode;
pub mod journal;
pub mod superblock;
pub mod xattr;

pub use block_size::BlockSize;

/// On-disk size of an inode in bytes.
pub const INODE_SIZE: u32 = 256;
/// The root directory's number (`EXT4_ROOT_INO`).
pub const ROOT_INODE: u32 = 2;
/// The inode that keeps the reserved descriptor blocks (`EXT4_RESIZE_INO`).
pub const RESIZE_INODE: u32 = 7;
/// The journal's inode (`EXT4_JOURNAL_INO`).
pub const JOURNAL_INODE: u32 = 8;
/// The first number an ordinary inode may have (`EXT4_GOOD_OLD_FIRST_INO`).
pub const FIRST_INODE: u32 = 11;

/// Puts a little-endian number at a byte offset.
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Puts a little-endian number at a byte offset.
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Puts a little-endian number at a byte offset.
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// The low half of a number that is kept in two fields.
#[must_use]
pub(crate) const fn low32(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// The high half of a number that is kept in two fields.
#[must_use]
pub(crate) const fn high32(value: u64) -> u32 {
    (value >> 32) as u32
}

/// The low half of a 32-bit number that is kept in two 16-bit fields.
#[must_use]
pub(crate) const fn low16(value: u32) -> u16 {
    (value & 0xffff) as u16
}

/// The high half of a 32-bit number that is kept in two 16-bit fields.
#[must_use]
pub(crate) const fn high16(value: u32) -> u16 {
    (value >> 16) as u16
}
