//! Group descriptors as bytes: an old one is changed in the fields that growing
//! concerns, a new one is made.

use super::place::Placed;
use super::shape::Shape;
use crate::ext4::format::group_desc::GroupFlags;
use crate::ext4::format::{high16, high32, low16, low32, put_u16, put_u32};
use crate::ext4::read::checksum::crc32c;
use crate::ext4::read::group_desc::{Group, Sums, CHECKSUM_AT};

/// The checksum of a bitmap's part that stands for something, where bitmaps
/// have one.
pub(super) fn bitmap_sum(sums: Sums, bitmap: &[u8], bits: u32) -> Option<u32> {
    match sums {
        Sums::Crc32c(seed) => Some(crc32c(seed, &bitmap[..bits as usize / 8])),
        Sums::Crc16(_) | Sums::None => None,
    }
}

/// One descriptor's bytes.
pub(super) struct Descriptor<'a>(pub(super) &'a mut [u8]);

impl Descriptor<'_> {
    /// What they say.
    pub(super) fn fields(&self) -> Group {
        Group::decode(self.0)
    }

    fn put_block(&mut self, low: usize, high: usize, value: u64) {
        put_u32(self.0, low, low32(value));
        if self.0.len() >= 64 {
            put_u32(self.0, high, high32(value));
        }
    }

    fn put_count(&mut self, low: usize, high: usize, value: u32) {
        put_u16(self.0, low, low16(value));
        if self.0.len() >= 64 {
            put_u16(self.0, high, high16(value));
        }
    }

    pub(super) fn put_free_blocks(&mut self, count: u32) {
        self.put_count(0x0c, 0x2c, count);
    }

    pub(super) fn put_block_bitmap_sum(&mut self, sum: u32) {
        self.put_count(0x18, 0x38, sum);
    }

    /// Fills a new group's.
    pub(super) fn fill(&mut self, shape: &Shape, placed: &Placed, free: u32, flags: GroupFlags) {
        self.0.fill(0);
        self.put_block(0x00, 0x20, placed.block_bitmap);
        self.put_block(0x04, 0x24, placed.inode_bitmap);
        self.put_block(0x08, 0x28, placed.inode_table);
        self.put_free_blocks(free);
        self.put_count(0x0e, 0x2e, shape.inodes_per_group);
        put_u16(self.0, 0x12, flags.bits());
        if flags.contains(GroupFlags::INODE_UNINIT) {
            self.put_count(0x1c, 0x32, shape.inodes_per_group);
        }
    }

    /// Makes the checksum right, where there is one.
    pub(super) fn seal(&mut self, group: u32, sums: Sums) {
        if let Some(sum) = sums.of_descriptor(group, self.0) {
            put_u16(self.0, CHECKSUM_AT, sum);
        }
    }
}
