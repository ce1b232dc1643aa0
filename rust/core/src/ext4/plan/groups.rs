//! What each block group has in use, for its descriptor and its bitmaps.

use std::ops::Range;

use super::geometry::Geometry;
use super::numbers::LOST_AND_FOUND;
use super::Plan;
use crate::ext4::format::group_desc::{bitmap_checksum, GroupDesc, GroupFlags};
use crate::ext4::format::FIRST_INODE;
use crate::tree::Kind;

/// One group's counts.
#[derive(Clone, Copy, Debug)]
struct Group {
    used_blocks: u32,
    used_inodes: u32,
    directories: u32,
    /// Inodes up to the last one in use.
    table_used: u32,
    flags: GroupFlags,
    block_bitmap_csum: u32,
    inode_bitmap_csum: u32,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Vec<Group>,
    free_blocks: u64,
    free_inodes: u32,
}

impl Groups {
    /// Counts what `plan` uses. Needs everything of it but this.
    #[must_use]
    pub(crate) fn new(plan: &Plan<'_>) -> Self {
        let mut groups = Self::count(plan);
        groups.set_flags_and_checksums(plan);
        groups
    }

    fn count(plan: &Plan<'_>) -> Self {
        let geometry = &plan.geometry;
        let empty = Group {
            used_blocks: 0,
            used_inodes: 0,
            directories: 0,
            table_used: 0,
            flags: GroupFlags::INODE_ZEROED,
            block_bitmap_csum: 0,
            inode_bitmap_csum: 0,
        };
        let mut groups = vec![empty; geometry.groups as usize];
        let mut use_blocks = |range: Range<u64>| {
            for (group, bits) in geometry.per_group(&range) {
                groups[group as usize].used_blocks += bits.end - bits.start;
            }
        };
        for group in 0..geometry.groups {
            for range in own_blocks(geometry, group) {
                use_blocks(range);
            }
        }
        for run in &plan.layout.runs {
            use_blocks(run.start..run.end());
        }

        let per = geometry.inodes_per_group;
        let mut use_inode = |number: u32, directory: bool| {
            let group = &mut groups[((number - 1) / per) as usize];
            group.used_inodes += 1;
            group.directories += u32::from(directory);
            group.table_used = group.table_used.max((number - 1) % per + 1);
        };
        for number in 1..FIRST_INODE {
            // The root is the one directory among them.
            use_inode(number, number == super::numbers::ROOT);
        }
        if plan.lost_and_found {
            use_inode(LOST_AND_FOUND, true);
        }
        for number in FIRST_INODE..=plan.numbers.highest() {
            if let Some(node) = plan.numbers.node(number) {
                let kind = plan.tree.node(node).kind;
                use_inode(number, matches!(kind, Kind::Directory(_)));
            } else if plan.numbers.value(number).is_some() {
                use_inode(number, false);
            }
        }

        let free_blocks = (0..geometry.groups)
            .zip(&groups)
            .map(|(number, group)| u64::from(geometry.group_blocks(number) - group.used_blocks))
            .sum();
        let free_inodes = groups.iter().map(|group| per - group.used_inodes).sum();
        Self {
            groups,
            free_blocks,
            free_inodes,
        }
    }

    fn set_flags_and_checksums(&mut self, plan: &Plan<'_>) {
        let geometry = &plan.geometry;
        let mut bitmap = vec![0; geometry.block_size().size()];
        let per_group = geometry.block_size().blocks_per_group();
        for number in 0..geometry.groups {
            let group = &mut self.groups[number as usize];
            let superblock = if Geometry::has_superblock(number) {
                geometry.superblock_area()
            } else {
                0
            };
            // The kernel computes such a bitmap from the superblock's area
            // alone (ext4_init_block_bitmap). Not so in the last group, whose
            // padding must be there (ext2fs_initialize).
            if group.used_blocks == superblock && number + 1 < geometry.groups {
                group.flags |= GroupFlags::BLOCK_UNINIT;
            } else {
                plan.fill_block_bitmap(number, &mut bitmap);
                group.block_bitmap_csum = bitmap_checksum(plan.seed, &bitmap, per_group);
            }
            if group.used_inodes == 0 {
                group.flags |= GroupFlags::INODE_UNINIT;
            } else {
                plan.fill_inode_bitmap(number, &mut bitmap);
                group.inode_bitmap_csum =
                    bitmap_checksum(plan.seed, &bitmap, geometry.inodes_per_group);
            }
        }
    }

    /// Free blocks of the whole.
    #[must_use]
    pub(crate) fn free_blocks(&self) -> u64 {
        self.free_blocks
    }

    /// Free inodes of the whole.
    #[must_use]
    pub(crate) fn free_inodes(&self) -> u32 {
        self.free_inodes
    }

    /// Whether the group's block bitmap is written.
    #[must_use]
    pub(crate) fn has_block_bitmap(&self, group: u32) -> bool {
        !self.groups[group as usize]
            .flags
            .contains(GroupFlags::BLOCK_UNINIT)
    }

    /// Whether the group's inode bitmap is written.
    #[must_use]
    pub(crate) fn has_inode_bitmap(&self, group: u32) -> bool {
        !self.groups[group as usize]
            .flags
            .contains(GroupFlags::INODE_UNINIT)
    }

    /// Inodes of the group's table up to the last one in use.
    #[must_use]
    pub(crate) fn table_used(&self, group: u32) -> u32 {
        self.groups[group as usize].table_used
    }

    /// The group's descriptor.
    #[must_use]
    pub(crate) fn descriptor(&self, geometry: &Geometry, number: u32) -> GroupDesc {
        let group = &self.groups[number as usize];
        GroupDesc {
            block_bitmap: geometry.block_bitmap(number),
            inode_bitmap: geometry.inode_bitmap(number),
            inode_table: geometry.inode_table(number),
            free_blocks: geometry.group_blocks(number) - group.used_blocks,
            free_inodes: geometry.inodes_per_group - group.used_inodes,
            used_dirs: group.directories,
            flags: group.flags,
            block_bitmap_csum: group.block_bitmap_csum,
            inode_bitmap_csum: group.inode_bitmap_csum,
            itable_unused: geometry.inodes_per_group - group.table_used,
        }
    }
}

/// The blocks that exist for the sake of `group`, wherever they lie.
pub(crate) fn own_blocks(geometry: &Geometry, group: u32) -> [Range<u64>; 4] {
    let one = |at: u64| at..at + 1;
    let start = geometry.group_start(group);
    let area = if Geometry::has_superblock(group) {
        geometry.superblock_area()
    } else {
        0
    };
    let table = geometry.inode_table(group);
    [
        start..start + u64::from(area),
        one(geometry.block_bitmap(group)),
        one(geometry.inode_bitmap(group)),
        table..table + u64::from(geometry.table_blocks()),
    ]
}
