//! Block group descriptors (`struct ext4_group_desc`): 64 bytes each, or the
//! first 32 of them without the feature `64bit`.

use bitflags::bitflags;

use super::checksum::{crc16, Checksum};
use super::{high16, high32, low16, low32, put_u16, put_u32};

bitflags! {
    /// `bg_flags`
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GroupFlags: u16 {
        /// No inode is in use: the inode bitmap was never written.
        const INODE_UNINIT = 0x1;
        /// The block bitmap was never written: only this group's own metadata
        /// is in use, and the kernel computes it.
        const BLOCK_UNINIT = 0x2;
        /// The inode table is zeroed: lazy initialisation has no work.
        const INODE_ZEROED = 0x4;
    }
}

/// One descriptor. The checksums of the bitmaps are those of the bitmaps'
/// bytes, see [`bitmap_checksum`].
#[derive(Clone, Copy, Debug)]
pub struct GroupDesc {
    /// Block of the block bitmap.
    pub block_bitmap: u64,
    /// Block of the inode bitmap.
    pub inode_bitmap: u64,
    /// First block of the inode table.
    pub inode_table: u64,
    /// Free blocks.
    pub free_blocks: u32,
    /// Free inodes.
    pub free_inodes: u32,
    /// Directories.
    pub used_dirs: u32,
    /// Flags.
    pub flags: GroupFlags,
    /// Checksum of the block bitmap, 0 when it was never written.
    pub block_bitmap_csum: u32,
    /// Checksum of the inode bitmap, 0 when it was never written.
    pub inode_bitmap_csum: u32,
    /// Inodes at the end of the table that were never used.
    pub itable_unused: u32,
}

impl GroupDesc {
    /// Puts the descriptor of group `group` into `out`, which is 32 or 64 bytes
    /// long. Without metadata checksums it gets the older one, which covers the
    /// UUID as well.
    pub fn encode(&self, group: u32, seed: Checksum, uuid: &[u8; 16], out: &mut [u8]) {
        let mut raw = [0; 64];
        put_u32(&mut raw, 0x00, low32(self.block_bitmap)); // bg_block_bitmap_lo
        put_u32(&mut raw, 0x04, low32(self.inode_bitmap)); // bg_inode_bitmap_lo
        put_u32(&mut raw, 0x08, low32(self.inode_table)); // bg_inode_table_lo
        put_u16(&mut raw, 0x0c, low16(self.free_blocks)); // bg_free_blocks_count_lo
        put_u16(&mut raw, 0x0e, low16(self.free_inodes)); // bg_free_inodes_count_lo
        put_u16(&mut raw, 0x10, low16(self.used_dirs)); // bg_used_dirs_count_lo
        put_u16(&mut raw, 0x12, self.flags.bits()); // bg_flags
        put_u16(&mut raw, 0x18, low16(self.block_bitmap_csum)); // bg_block_bitmap_csum_lo
        put_u16(&mut raw, 0x1a, low16(self.inode_bitmap_csum)); // bg_inode_bitmap_csum_lo
        put_u16(&mut raw, 0x1c, low16(self.itable_unused)); // bg_itable_unused_lo
        put_u32(&mut raw, 0x20, high32(self.block_bitmap)); // bg_block_bitmap_hi
        put_u32(&mut raw, 0x24, high32(self.inode_bitmap)); // bg_inode_bitmap_hi
        put_u32(&mut raw, 0x28, high32(self.inode_table)); // bg_inode_table_hi
        put_u16(&mut raw, 0x2c, high16(self.free_blocks)); // bg_free_blocks_count_hi
        put_u16(&mut raw, 0x2e, high16(self.free_inodes)); // bg_free_inodes_count_hi
        put_u16(&mut raw, 0x30, high16(self.used_dirs)); // bg_used_dirs_count_hi
        put_u16(&mut raw, 0x32, high16(self.itable_unused)); // bg_itable_unused_hi
        put_u16(&mut raw, 0x38, high16(self.block_bitmap_csum)); // bg_block_bitmap_csum_hi
        put_u16(&mut raw, 0x3a, high16(self.inode_bitmap_csum)); // bg_inode_bitmap_csum_hi

        // bg_checksum covers the group's number and the descriptor: the newer
        // one with itself as zero and cut to 16 bits, the older one up to itself.
        let checksum = if seed.is_on() {
            low16(seed.u32(group).bytes(&raw[..out.len()]).value())
        } else {
            let start = crc16(crc16(!0, uuid), &group.to_le_bytes());
            crc16(start, &raw[..0x1e])
        };
        put_u16(&mut raw, 0x1e, checksum);
        out.copy_from_slice(&raw[..out.len()]);
    }
}

/// The checksum of a bitmap: over as many bytes as hold the group's bits.
#[must_use]
pub fn bitmap_checksum(seed: Checksum, bitmap: &[u8], bits: u32) -> u32 {
    seed.bytes(&bitmap[..bits as usize / 8]).value()
}
