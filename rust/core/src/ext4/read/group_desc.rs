//! Group descriptors (`struct ext4_group_desc`) and their checksums.

use super::bytes::{hilo, u16_at, u32_at};
use super::checksum::{crc16, crc32c};
use super::features::ro_compat;
use super::superblock::Superblock;

/// `EXT4_BG_INODE_UNINIT`: the inode bitmap was never written.
pub const INODE_UNINIT: u16 = 0x1;
/// `EXT4_BG_BLOCK_UNINIT`: the block bitmap was never written.
pub const BLOCK_UNINIT: u16 = 0x2;
/// Where `bg_checksum` is in a descriptor.
pub const CHECKSUM_AT: usize = 0x1e;
/// Size of a descriptor's first half, the only one without `64bit`.
pub const HALF: usize = 32;

/// One descriptor (`struct ext4_group_desc`), halves joined.
#[derive(Clone, Debug)]
pub struct Group {
    /// Block of the block bitmap.
    pub block_bitmap: u64,
    /// Block of the inode bitmap.
    pub inode_bitmap: u64,
    /// First block of the inode table.
    pub inode_table: u64,
    /// Free blocks, or clusters.
    pub free_clusters: u32,
    /// Free inodes.
    pub free_inodes: u32,
    /// Directories.
    pub used_dirs: u32,
    /// Inodes at the table's end that were never in use.
    pub itable_unused: u32,
    /// [`INODE_UNINIT`], [`BLOCK_UNINIT`]
    pub bg_flags: u16,
    /// Checksum of the block bitmap; its low half only in 32 bytes.
    pub block_bitmap_csum: u32,
    /// The same of the inode bitmap.
    pub inode_bitmap_csum: u32,
}

impl Group {
    /// `raw` has 32 bytes, or 64 and more.
    #[must_use]
    pub fn decode(raw: &[u8]) -> Self {
        let wide = raw.len() >= 64;
        let high32 = |at: usize| if wide { u32_at(raw, at) } else { 0 };
        let high16 = |at: usize| {
            if wide {
                u32::from(u16_at(raw, at)) << 16
            } else {
                0
            }
        };
        Self {
            block_bitmap: hilo(high32(0x20), u32_at(raw, 0x00)),
            inode_bitmap: hilo(high32(0x24), u32_at(raw, 0x04)),
            inode_table: hilo(high32(0x28), u32_at(raw, 0x08)),
            free_clusters: u32::from(u16_at(raw, 0x0c)) | high16(0x2c),
            free_inodes: u32::from(u16_at(raw, 0x0e)) | high16(0x2e),
            used_dirs: u32::from(u16_at(raw, 0x10)) | high16(0x30),
            bg_flags: u16_at(raw, 0x12),
            block_bitmap_csum: u32::from(u16_at(raw, 0x18)) | high16(0x38),
            inode_bitmap_csum: u32::from(u16_at(raw, 0x1a)) | high16(0x3a),
            itable_unused: u32::from(u16_at(raw, 0x1c)) | high16(0x32),
        }
    }
}

/// The descriptors' checksum, in the form the features name.
#[derive(Clone, Copy, Debug)]
pub enum Sums {
    /// There is none, and the descriptors' flags mean nothing.
    None,
    /// `uninit_bg`: the register after the UUID.
    Crc16(u16),
    /// `metadata_csum`: the seed. Bitmaps have checksums as well.
    Crc32c(u32),
}

impl Sums {
    /// By the features.
    #[must_use]
    pub fn of(sb: &Superblock) -> Self {
        if sb.has_checksums() {
            Self::Crc32c(sb.checksum_seed())
        } else if sb.has_ro_compat(ro_compat::GDT_CSUM) {
            Self::Crc16(crc16(!0, &sb.s_uuid))
        } else {
            Self::None
        }
    }

    /// What `bg_checksum` should be: over the group's number and the descriptor
    /// (`ext4_group_desc_csum`). The CRC32C counts the field itself as zero,
    /// the CRC16 leaves it out.
    #[must_use]
    pub fn of_descriptor(&self, group: u32, raw: &[u8]) -> Option<u16> {
        let (head, tail) = (&raw[..CHECKSUM_AT], &raw[CHECKSUM_AT + 2..]);
        match *self {
            Self::None => None,
            Self::Crc16(register) => {
                let register = crc16(register, &group.to_le_bytes());
                Some(crc16(crc16(register, head), tail))
            }
            Self::Crc32c(seed) => {
                let register = crc32c(seed, &group.to_le_bytes());
                let register = crc32c(crc32c(crc32c(register, head), &[0, 0]), tail);
                // The low half is kept.
                Some((register & 0xffff) as u16)
            }
        }
    }
}
