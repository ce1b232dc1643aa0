//! The shape of a file system: groups, descriptors, backups. Before and after.

use std::ops::Range;
use std::path::Path;

use super::fault::{unsound, unsupported};
use super::superblock::{compat, incompat, ro_compat, Superblock};
use crate::error::Result;

/// Where things lie, by arithmetic alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) block_size: u32,
    pub(super) first_data_block: u32,
    pub(super) blocks: u64,
    pub(super) per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u32,
    pub(super) desc_size: u32,
    pub(super) groups: u32,
    /// Groups that keep their bitmaps and tables together.
    pub(super) flex: u32,
    pub(super) sparse: bool,
    /// Blocks reserved for descriptors, when there is a resize inode.
    pub(super) reserved: u32,
    pub(super) resize_inode: bool,
    /// From which block of descriptors on they lie in their own groups.
    pub(super) first_meta: Option<u32>,
}

impl Shape {
    /// The shape that a superblock tells.
    pub(super) fn of(sb: &Superblock, path: &Path) -> Result<Self> {
        let bad = |what: &str| {
            Err(unsound(
                path,
                format!("the superblock is senseless ({what})"),
            ))
        };
        let log = sb.u32(0x18);
        if log > 6 || sb.u32(0x1c) != log {
            return bad("block size");
        }
        let block_size = 1024 << log;
        let bits = block_size * 8;
        let wide = sb.has_incompat(incompat::SIXTY_FOUR_BIT);
        let desc_size = if wide { u32::from(sb.u16(0xfe)) } else { 32 };
        let flex_bits = sb.byte(0x174);
        let shape = Self {
            block_size,
            first_data_block: sb.u32(0x14),
            blocks: sb.wide(0x04, 0x150),
            per_group: sb.u32(0x20),
            inodes_per_group: sb.u32(0x28),
            inode_size: u32::from(sb.u16(0x58)),
            desc_size,
            groups: 0,
            flex: if sb.has_incompat(incompat::FLEX_BG) && flex_bits < 31 {
                1 << flex_bits
            } else {
                1
            },
            sparse: sb.has_ro_compat(ro_compat::SPARSE_SUPER),
            reserved: u32::from(sb.u16(0xce)),
            resize_inode: sb.has_compat(compat::RESIZE_INODE),
            first_meta: sb.has_incompat(incompat::META_BG).then(|| sb.u32(0x104)),
        };
        if shape.first_data_block != u32::from(block_size == 1024)
            || shape.blocks <= u64::from(shape.first_data_block)
            || shape.blocks > 1 << 48
        {
            return bad("number of blocks");
        }
        if shape.per_group == 0 || shape.per_group > bits || !shape.per_group.is_multiple_of(8) {
            return bad("blocks in a group");
        }
        if shape.inodes_per_group < 16
            || shape.inodes_per_group > bits
            || !shape.inodes_per_group.is_multiple_of(8)
        {
            return bad("inodes in a group");
        }
        if !shape.inode_size.is_power_of_two()
            || !(128..=block_size).contains(&shape.inode_size)
            || !desc_size.is_power_of_two()
            || !(if wide { 64 } else { 32 }..=1024).contains(&desc_size)
        {
            return bad("size of an inode or of a descriptor");
        }
        if shape.reserved > block_size / 4 || (!shape.resize_inode && shape.reserved > 0) {
            return bad("reserved blocks for descriptors");
        }
        let groups = shape.groups_of(shape.blocks);
        // What the kernel takes (EXT4_MAX_BLOCK_GROUP is not named, but inodes
        // have 32 bits and a group has at least 8 of them).
        let inodes = groups.checked_mul(u64::from(shape.inodes_per_group));
        if inodes != Some(u64::from(sb.u32(0x00))) {
            return bad("number of inodes");
        }
        let shape = Self {
            // OK to cut: the product above has 32 bits.
            groups: groups as u32,
            ..shape
        };
        if shape.resize_inode && (!shape.sparse || shape.first_meta.is_some()) {
            return Err(unsupported(
                path,
                "it has a resize inode together with what excludes one",
            ));
        }
        if shape
            .first_meta
            .is_some_and(|first| first > shape.desc_blocks())
        {
            return bad("first_meta_bg");
        }
        shape.demand_room(path)?;
        Ok(shape)
    }

    /// Each whole group holds at least its own blocks.
    pub(super) fn demand_room(&self, path: &Path) -> Result<()> {
        let area = 1 + u64::from(self.classic()) + u64::from(self.reserved);
        if area + 2 + u64::from(self.table_blocks()) > u64::from(self.per_group) {
            return Err(unsupported(
                path,
                "its groups are too small for the descriptors of so many",
            ));
        }
        Ok(())
    }

    /// How many groups so many blocks make.
    pub(super) fn groups_of(&self, blocks: u64) -> u64 {
        (blocks - u64::from(self.first_data_block)).div_ceil(u64::from(self.per_group))
    }

    pub(super) const fn descs_per_block(&self) -> u32 {
        self.block_size / self.desc_size
    }

    pub(super) const fn desc_blocks(&self) -> u32 {
        self.groups.div_ceil(self.descs_per_block())
    }

    /// Blocks of descriptors behind each superblock.
    pub(super) fn classic(&self) -> u32 {
        self.first_meta.unwrap_or(self.desc_blocks())
    }

    pub(super) fn table_blocks(&self) -> u32 {
        // At most 2^19 inodes of at most 2^16 bytes.
        (u64::from(self.inodes_per_group) * u64::from(self.inode_size))
            .div_ceil(u64::from(self.block_size)) as u32
    }

    pub(super) fn start(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * u64::from(self.per_group)
    }

    pub(super) fn end(&self, group: u32) -> u64 {
        self.blocks
            .min(self.start(group) + u64::from(self.per_group))
    }

    /// Which group a block lies in, if it is one.
    pub(super) fn group_of(&self, block: u64) -> Option<u32> {
        let within = block.checked_sub(u64::from(self.first_data_block))?;
        let group = within / u64::from(self.per_group);
        // OK to cut: groups have 32 bits.
        (block < self.blocks).then_some(group as u32)
    }

    /// Whether a group begins with a superblock (`ext4_bg_has_super`).
    pub(super) fn has_superblock(&self, group: u32) -> bool {
        let is_power_of = |base: u32| {
            let mut rest = group;
            while rest.is_multiple_of(base) {
                rest /= base;
            }
            rest == 1
        };
        !self.sparse || group <= 1 || [3, 5, 7].into_iter().any(is_power_of)
    }

    /// Whether the descriptors of a group lie in their own groups.
    fn is_meta(&self, group: u32) -> bool {
        self.first_meta
            .is_some_and(|first| group / self.descs_per_block() >= first)
    }

    /// Superblock and descriptors at the beginning of a group.
    pub(super) fn area(&self, group: u32) -> Range<u64> {
        let start = self.start(group);
        let superblock = u64::from(self.has_superblock(group));
        let descriptors = if self.is_meta(group) {
            let within = group % self.descs_per_block();
            // ext4_bg_num_gdt_meta
            u64::from(within <= 1 || within == self.descs_per_block() - 1)
        } else {
            superblock * u64::from(self.classic() + self.reserved)
        };
        start..start + superblock + descriptors
    }

    /// Groups with a copy of the superblock, but for the first.
    pub(super) fn backups(&self) -> Vec<u32> {
        if !self.sparse {
            return (1..self.groups).collect();
        }
        let mut found = vec![1];
        for base in [3u32, 5, 7] {
            let mut power = Some(base);
            while let Some(group) = power.filter(|&group| group < self.groups) {
                found.push(group);
                power = group.checked_mul(base);
            }
        }
        found.sort_unstable();
        found.retain(|&group| group < self.groups);
        found
    }

    /// Where a block of descriptors lies.
    pub(super) fn desc_block(&self, index: u32) -> u64 {
        if self.first_meta.is_none_or(|first| index < first) {
            return u64::from(self.first_data_block) + 1 + u64::from(index);
        }
        let group = index * self.descs_per_block();
        self.start(group) + u64::from(self.has_superblock(group))
    }

    /// Where the copies of a block of descriptors lie.
    pub(super) fn desc_copies(&self, index: u32, backups: &[u32]) -> Vec<u64> {
        if self.first_meta.is_none_or(|first| index < first) {
            return backups
                .iter()
                .filter(|&&group| !self.is_meta(group))
                .map(|&group| self.start(group) + 1 + u64::from(index))
                .collect();
        }
        let first = index * self.descs_per_block();
        [first + 1, first + self.descs_per_block() - 1]
            .into_iter()
            .filter(|&group| group < self.groups)
            .map(|group| self.start(group) + u64::from(self.has_superblock(group)))
            .collect()
    }

    pub(super) fn byte(&self, block: u64) -> u64 {
        block * u64::from(self.block_size)
    }
}
