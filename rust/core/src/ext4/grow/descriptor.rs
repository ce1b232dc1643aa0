//! Group descriptors as bytes: an old one is changed in the fields that growing
//! concerns, a new one is made.

use super::place::Placed;
use super::shape::Shape;
use super::superblock::Superblock;
use crate::ext4::format::checksum::{crc16, Checksum};
use crate::ext4::format::group_desc::GroupFlags;
use crate::ext4::format::{high16, high32, low16, low32, put_u16, put_u32};

/// What the checksums of descriptors and bitmaps need.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    pub(super) seed: Checksum,
    uuid: Vec<u8>,
    /// `metadata_csum` or `uninit_bg`.
    pub(super) any: bool,
}

impl Sums {
    pub(super) fn of(sb: &Superblock) -> Self {
        Self {
            seed: sb.seed(),
            uuid: sb.uuid().to_vec(),
            any: sb.has_group_checksums(),
        }
    }

    /// Of a bitmap's part that stands for something.
    pub(super) fn bitmap(&self, bitmap: &[u8], bits: u32) -> u32 {
        self.seed.bytes(&bitmap[..bits as usize / 8]).value()
    }
}

/// One descriptor's bytes.
pub(super) struct Descriptor<'a>(pub(super) &'a mut [u8]);

impl Descriptor<'_> {
    fn is_wide(&self) -> bool {
        self.0.len() >= 64
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn block(&self, low: usize, high: usize) -> u64 {
        let high = if self.is_wide() { self.u32(high) } else { 0 };
        u64::from(high) << 32 | u64::from(self.u32(low))
    }

    fn put_block(&mut self, low: usize, high: usize, value: u64) {
        put_u32(self.0, low, low32(value));
        if self.is_wide() {
            put_u32(self.0, high, high32(value));
        }
    }

    fn put_count(&mut self, low: usize, high: usize, value: u32) {
        put_u16(self.0, low, low16(value));
        if self.is_wide() {
            put_u16(self.0, high, high16(value));
        }
    }

    pub(super) fn block_bitmap(&self) -> u64 {
        self.block(0x00, 0x20)
    }

    pub(super) fn inode_table(&self) -> u64 {
        self.block(0x08, 0x28)
    }

    pub(super) fn free_blocks(&self) -> u32 {
        let high = if self.is_wide() { self.u16(0x2c) } else { 0 };
        u32::from(high) << 16 | u32::from(self.u16(0x0c))
    }

    pub(super) fn put_free_blocks(&mut self, count: u32) {
        self.put_count(0x0c, 0x2c, count);
    }

    pub(super) fn flags(&self) -> GroupFlags {
        GroupFlags::from_bits_retain(self.u16(0x12))
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

    /// `ext4_group_desc_csum`
    pub(super) fn seal(&mut self, group: u32, sums: &Sums) {
        if !sums.any {
            return;
        }
        put_u16(self.0, 0x1e, 0);
        let sum = if sums.seed.is_on() {
            low16(sums.seed.u32(group).bytes(self.0).value())
        } else {
            let start = crc16(crc16(!0, &sums.uuid), &group.to_le_bytes());
            let first = crc16(start, &self.0[..0x1e]);
            if self.0.len() > 32 {
                crc16(first, &self.0[0x20..])
            } else {
                first
            }
        };
        put_u16(self.0, 0x1e, sum);
    }
}
