//! The shape of a file system: groups, descriptors, backups. Before and after.

use std::ops::Range;
use std::path::Path;

use super::fault::{unsound, unsupported};
use crate::error::Result;
use crate::ext4::read::features::{compat, incompat, ro_compat};
use crate::ext4::read::geometry::{is_power, Geometry};
use crate::ext4::read::superblock::Superblock as Fields;

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
    /// The shape that a superblock tells,
    /// in a file of `size` bytes.
    pub(super) fn of(sb: &Fields, size: u64, path: &Path) -> Result<Self> {
        let bad = |what: String| unsound(path, format!("the superblock is senseless ({what})"));
        let mut reasons = Vec::new();
        let geometry = Geometry::of(sb, size, |_, text| reasons.push(text));
        let geometry = geometry.ok_or_else(|| bad(reasons.join("; ")))?;
        let shape = Self {
            block_size: geometry.block_size,
            first_data_block: geometry.first_data_block,
            blocks: geometry.blocks,
            per_group: geometry.blocks_per_group,
            inodes_per_group: geometry.inodes_per_group,
            inode_size: geometry.inode_size.into(),
            desc_size: geometry.desc_size.into(),
            groups: geometry.groups,
            flex: if sb.has_incompat(incompat::FLEX_BG) && sb.s_log_groups_per_flex < 31 {
                1 << sb.s_log_groups_per_flex
            } else {
                1
            },
            sparse: sb.has_ro_compat(ro_compat::SPARSE_SUPER),
            reserved: sb.s_reserved_gdt_blocks.into(),
            resize_inode: sb.has_compat(compat::RESIZE_INODE),
            first_meta: sb
                .has_incompat(incompat::META_BG)
                .then_some(sb.s_first_meta_bg),
        };
        if !shape.resize_inode && shape.reserved > 0 {
            return Err(bad("reserved blocks for descriptors".into()));
        }
        if shape.resize_inode && (!shape.sparse || shape.first_meta.is_some()) {
            return Err(unsupported(
                path,
                "it has a resize inode together with what excludes one",
            ));
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
        !self.sparse || group <= 1 || [3, 5, 7].into_iter().any(|base| is_power(group, base))
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
