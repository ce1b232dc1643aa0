//! Where the file system's own blocks lie: pure arithmetic over the number of
//! blocks and inodes.
//!
//! As mke2fs lays it out: sixteen groups keep their bitmaps and inode tables
//! together at the beginning of the first of them (`flex_bg`), and groups 0, 1
//! and the powers of 3, 5 and 7 begin with a superblock, the descriptors and
//! room for more of them (`sparse_super`, `resize_inode`).

use std::ops::Range;

use crate::ext4::format::features::{Compat, Features};
use crate::ext4::format::BlockSize;

/// Blocks for descriptors, used and reserved, in each backup: with 64
/// descriptors in a block, a file system of the largest blocks can grow to 1 TiB
/// online without moving anything. mke2fs takes the same for 1 GiB.
const DESCRIPTOR_AREA: u32 = 128;

/// Whether positions may depend on how many groups there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// They do not: what is missing of a flex group leaves a gap, so that
    /// images of different sizes have the same blocks at the same places.
    Stable,
    /// They do: no block is left over.
    Compact,
}

/// The geometry of a file system of so many blocks and inodes.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    /// Blocks in all.
    pub(crate) blocks: u64,
    /// Groups.
    pub(crate) groups: u32,
    /// Inodes in a group, a multiple of 16.
    pub(crate) inodes_per_group: u32,
    /// Blocks of descriptors.
    pub(crate) descriptor_blocks: u32,
    /// Blocks reserved for more of them.
    pub(crate) reserved_descriptor_blocks: u32,
    block_size: BlockSize,
    spacing: Spacing,
}

impl Geometry {
    /// The geometry for `blocks` blocks.
    #[must_use]
    pub(crate) fn new(
        block_size: BlockSize,
        blocks: u64,
        inodes_per_group: u32,
        spacing: Spacing,
        features: &Features,
    ) -> Self {
        let groups = group_count(block_size, blocks);
        let descriptors_per_block = block_size.bytes() / features.descriptor_size();
        let descriptor_blocks = groups.div_ceil(descriptors_per_block);
        // Doubled until half of it is free: growing by reserved blocks.
        let mut area = DESCRIPTOR_AREA;
        while area < descriptor_blocks * 2 {
            area *= 2;
        }
        if spacing == Spacing::Compact {
            // As mke2fs: room to grow 1,024-fold. But where that is more than the
            // gaps' spacing has, the least image would not be the least.
            let grown = blocks.saturating_mul(1024).min(u64::from(u32::MAX));
            let groups = group_count(block_size, grown);
            area = area.min(groups.div_ceil(descriptors_per_block));
        }
        let reserved = if features.compat.contains(Compat::RESIZE_INODE) {
            area.saturating_sub(descriptor_blocks)
                // `resize_inode` maps them by one indirect block.
                .clamp(1, block_size.pointers())
        } else {
            0
        };
        Self {
            blocks,
            groups,
            inodes_per_group,
            descriptor_blocks,
            reserved_descriptor_blocks: reserved,
            block_size,
            spacing,
        }
    }

    /// Inodes of all groups.
    #[must_use]
    pub(crate) fn inodes(&self) -> u32 {
        self.groups * self.inodes_per_group
    }

    /// First block of a group.
    #[must_use]
    pub(crate) fn group_start(&self, group: u32) -> u64 {
        let first = u64::from(self.block_size.first_block());
        first + u64::from(group) * u64::from(self.block_size.blocks_per_group())
    }

    /// Size of a block.
    #[must_use]
    pub(crate) fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// The first group of the flex group of `group`.
    #[must_use]
    pub(crate) fn flex_start(&self, group: u32) -> u32 {
        group - group % self.block_size.groups_per_flex()
    }

    /// A range of blocks, cut at the groups' borders: (group, bits in it).
    pub(crate) fn per_group(
        &self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (u32, Range<u32>)> + use<> {
        let first = u64::from(self.block_size.first_block());
        let per = u64::from(self.block_size.blocks_per_group());
        let (mut start, end) = (range.start - first, range.end - first);
        std::iter::from_fn(move || {
            if start >= end {
                return None;
            }
            let group = start / per;
            let stop = end.min((group + 1) * per);
            let bits = (start % per) as u32..(stop - group * per) as u32;
            start = stop;
            Some((group as u32, bits))
        })
    }

    /// How many blocks a group has: only the last may have fewer.
    #[must_use]
    pub(crate) fn group_blocks(&self, group: u32) -> u32 {
        let left = self.blocks.saturating_sub(self.group_start(group));
        left.min(u64::from(self.block_size.blocks_per_group())) as u32
    }

    /// Whether the group begins with a copy of superblock and descriptors.
    #[must_use]
    pub(crate) fn has_superblock(group: u32) -> bool {
        let is_power_of = |base: u32| {
            let mut rest = group;
            while rest > 1 && rest.is_multiple_of(base) {
                rest /= base;
            }
            rest == 1
        };
        group <= 1 || [3, 5, 7].into_iter().any(is_power_of)
    }

    /// Groups with a backup of superblock and descriptors, ascending.
    pub(crate) fn backup_groups(&self) -> impl Iterator<Item = u32> + use<> {
        let groups = self.groups;
        (1..groups).filter(|&group| Self::has_superblock(group))
    }

    /// Blocks at the beginning of a group with a superblock.
    #[must_use]
    pub(crate) fn superblock_area(&self) -> u32 {
        1 + self.descriptor_blocks + self.reserved_descriptor_blocks
    }

    /// Blocks of one group's inode table.
    #[must_use]
    pub(crate) fn table_blocks(&self) -> u32 {
        self.inodes_per_group / self.block_size.inodes_per_block()
    }

    /// Where the bitmaps and tables of the flex group of `group` lie.
    fn flex(&self, group: u32) -> Flex {
        let first = self.flex_start(group);
        let per_flex = self.block_size.groups_per_flex();
        let lead = if Self::has_superblock(first) {
            self.superblock_area()
        } else {
            0
        };
        let there = per_flex.min(self.groups - first);
        let slots = match self.spacing {
            Spacing::Stable => per_flex,
            Spacing::Compact => there,
        };
        let start = self.group_start(first) + u64::from(lead);
        Flex {
            first,
            start,
            slots,
        }
    }

    /// Block of a group's block bitmap.
    #[must_use]
    pub(crate) fn block_bitmap(&self, group: u32) -> u64 {
        let flex = self.flex(group);
        flex.start + u64::from(group - flex.first)
    }

    /// Block of a group's inode bitmap.
    #[must_use]
    pub(crate) fn inode_bitmap(&self, group: u32) -> u64 {
        self.block_bitmap(group) + u64::from(self.flex(group).slots)
    }

    /// First block of a group's inode table.
    #[must_use]
    pub(crate) fn inode_table(&self, group: u32) -> u64 {
        let flex = self.flex(group);
        let size = u64::from(self.table_blocks());
        let tables = flex.start + 2 * u64::from(flex.slots);
        let at = tables + u64::from(group - flex.first) * size;
        // Only the largest tables reach into the second group: the last
        // one ends there, behind that group's superblock if it has one.
        let second = self.group_start(flex.first + 1);
        if at + size <= second {
            return at;
        }
        let lead = if Self::has_superblock(flex.first + 1) {
            self.superblock_area()
        } else {
            0
        };
        let fitting = (second - tables) / size;
        second + u64::from(lead) + (u64::from(group - flex.first) - fitting) * size
    }

    /// The blocks no file may have, in ascending order, without end: those of
    /// groups beyond the last are told as well.
    #[must_use]
    pub(crate) fn reserved(&self) -> Reserved<'_> {
        Reserved {
            geometry: self,
            group: 0,
            queue: Vec::new(),
        }
    }

    /// Pushes what is reserved in one group, ascending.
    fn reserved_in(&self, group: u32, out: &mut Vec<Range<u64>>) {
        let start = self.group_start(group);
        if Self::has_superblock(group) {
            out.push(start..start + u64::from(self.superblock_area()));
        }
        let first = self.flex_start(group);
        // Beyond the last group nothing exists; in compact spacing the last
        // flex group is as large as it is.
        if first >= self.groups && self.spacing == Spacing::Compact {
            return;
        }
        let whole = match self.spacing {
            Spacing::Stable => Self {
                groups: u32::MAX,
                ..self.clone()
            },
            Spacing::Compact => self.clone(),
        };
        let last = (first + self.block_size.groups_per_flex() - 1).min(whole.groups - 1);
        let second = self.group_start(first + 1);
        let end = whole.inode_table(last) + u64::from(self.table_blocks());
        if group == first {
            out.push(whole.flex(group).start..end.min(whole.first_gap(first, second)));
        } else if group == first + 1 && end > second {
            let lead = if Self::has_superblock(group) {
                self.superblock_area()
            } else {
                0
            };
            out.push(second + u64::from(lead)..end);
        }
    }

    /// Where the tables that lie in the first group of a flex group end.
    fn first_gap(&self, first: u32, second: u64) -> u64 {
        let size = u64::from(self.table_blocks());
        let flex = self.flex(first);
        let tables = flex.start + 2 * u64::from(flex.slots);
        tables + (second - tables) / size * size
    }

    /// Blocks that the groups need for themselves.
    #[must_use]
    pub(crate) fn own_blocks(&self) -> u64 {
        let each = 2 + u64::from(self.table_blocks());
        let copies = 1 + self.backup_groups().count() as u64;
        u64::from(self.groups) * each + copies * u64::from(self.superblock_area())
    }

    /// The number of blocks that the existing groups need for themselves: that
    /// of a file system whose last group holds nothing else.
    #[must_use]
    pub(crate) fn metadata_end(&self) -> u64 {
        let last = self.groups - 1;
        let table = self.inode_table(last) + u64::from(self.table_blocks());
        let superblock = if Self::has_superblock(last) {
            self.group_start(last) + u64::from(self.superblock_area())
        } else {
            0
        };
        table
            .max(superblock)
            .max(self.inode_bitmap(last) + 1)
            .max(self.group_start(last) + 1)
    }
}

/// Groups of so many blocks, the one that is not full included.
pub(crate) fn group_count(block_size: BlockSize, blocks: u64) -> u32 {
    let there = blocks.saturating_sub(u64::from(block_size.first_block()));
    // 2^32 groups would be 32 PiB in the smallest blocks; sizes end long before.
    there
        .div_ceil(u64::from(block_size.blocks_per_group()))
        .max(1) as u32
}

struct Flex {
    first: u32,
    start: u64,
    slots: u32,
}

/// See [`Geometry::reserved`].
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    geometry: &'a Geometry,
    group: u32,
    queue: Vec<Range<u64>>,
}

impl Iterator for Reserved<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        while self.queue.is_empty() {
            self.geometry.reserved_in(self.group, &mut self.queue);
            self.queue.reverse();
            self.group = self.group.checked_add(1)?;
        }
        self.queue.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_lie_where_mke2fs_puts_them() {
        let groups: Vec<u32> = (0..130).filter(|&g| Geometry::has_superblock(g)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    /// The numbers of `mke2fs -t ext4` for 1 GiB, from dumpe2fs, but for the
    /// slots of the eight groups that are missing.
    #[test]
    fn one_gibibyte_is_as_mke2fs_makes_it() {
        let compact = Geometry::new(
            BlockSize::PAGE,
            262_144,
            8192,
            Spacing::Compact,
            &Features::modern(),
        );
        assert_eq!(compact.groups, 8);
        assert_eq!(compact.reserved_descriptor_blocks, 127);
        assert_eq!(compact.block_bitmap(1), 130);
        assert_eq!(compact.inode_bitmap(0), 137);
        assert_eq!(compact.inode_table(1), 657);
        let stable = Geometry::new(
            BlockSize::PAGE,
            262_144,
            8192,
            Spacing::Stable,
            &Features::modern(),
        );
        assert_eq!(stable.inode_bitmap(0), 129 + 16);
        assert_eq!(stable.inode_table(0), 129 + 32);
    }

    /// Block sizes, parts of the most inodes of a group, and numbers of groups.
    fn everything() -> impl Iterator<Item = (u32, u32, u64)> {
        let sizes = [1024, 2048, 4096].into_iter();
        let parts = |bytes| [1, 2, 4, 1024].map(move |part| (bytes, part));
        sizes.flat_map(parts).flat_map(|(bytes, part)| {
            [1, 2, 3, 4, 5, 9, 15, 16, 17, 18, 33, 50].map(move |groups| (bytes, part, groups))
        })
    }

    /// No two of a file system's own blocks may coincide, and all must be
    /// among the reserved ones.
    #[test]
    fn own_blocks_never_overlap() {
        for features in [Features::modern(), Features::compat(), Features::readonly()] {
            for spacing in [Spacing::Stable, Spacing::Compact] {
                for (bytes, inodes, groups) in everything() {
                    let block_size = BlockSize::new(bytes).unwrap();
                    let per = u64::from(block_size.blocks_per_group());
                    let inodes = block_size.max_inodes_per_group() / inodes;
                    let end = u64::from(block_size.first_block()) + groups * per;
                    let geometry = Geometry::new(block_size, end, inodes, spacing, &features);
                    let mut own: Vec<Range<u64>> = Vec::new();
                    for group in 0..geometry.groups {
                        let start = geometry.group_start(group);
                        if Geometry::has_superblock(group) {
                            own.push(start..start + u64::from(geometry.superblock_area()));
                        }
                        let one = |at| at..at + 1;
                        own.push(one(geometry.block_bitmap(group)));
                        own.push(one(geometry.inode_bitmap(group)));
                        let table = geometry.inode_table(group);
                        own.push(table..table + u64::from(geometry.table_blocks()));
                    }
                    let sum: u64 = own.iter().map(|range| range.end - range.start).sum();
                    assert_eq!(geometry.own_blocks(), sum);
                    own.sort_by_key(|range| range.start);
                    for pair in own.windows(2) {
                        assert!(
                            pair[0].end <= pair[1].start,
                            "{bytes} {spacing:?} {inodes} {pair:?}"
                        );
                    }
                    let near = |range: &Range<u64>| range.start <= end;
                    let reserved: Vec<_> = geometry.reserved().take_while(near).collect();
                    for pair in reserved.windows(2) {
                        assert!(
                            pair[0].end <= pair[1].start,
                            "{bytes} {spacing:?} {inodes} {pair:?}"
                        );
                    }
                    for range in &own {
                        assert!(
                            reserved
                                .iter()
                                .any(|r| r.start <= range.start && range.end <= r.end),
                            "{bytes} {spacing:?} {inodes} {groups}: {range:?}"
                        );
                    }
                    assert!(geometry.metadata_end() >= own.last().unwrap().end);
                    assert!(own[0].start == u64::from(block_size.first_block()));
                }
            }
        }
    }
}
