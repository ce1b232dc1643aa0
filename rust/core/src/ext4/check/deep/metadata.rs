//! Groups' descriptors, and the blocks of the file system's own metadata.

use super::{Deep, GroupInfo};
use crate::error::Result;
use crate::ext4::read::features::{compat, incompat};
use crate::ext4::read::geometry::has_superblock;
use crate::ext4::read::group_desc::{Group, Sums, BLOCK_UNINIT, INODE_UNINIT};

impl Deep<'_> {
    /// Reads the descriptors and marks the metadata they name
    /// (`check_super_block`, `mark_table_blocks`).
    pub(super) fn read_groups(&mut self) -> Result<()> {
        let per_group = self.geometry.inodes_per_group;
        for group in 0..self.geometry.groups {
            if group % 64 == 0 {
                self.control.check()?;
            }
            let desc = self.descriptor(group)?;
            let has_sums = !matches!(self.fs.sums, Sums::None);
            let flags = if has_sums { desc.bg_flags } else { 0 };
            // The last group's bitmap has bits behind the end.
            if group == self.geometry.groups - 1 && flags & BLOCK_UNINIT != 0 {
                self.problem(
                    "group-flags",
                    format!("group {group}, the last one, has a bitmap of blocks that was never written"),
                );
            }
            let unused = if has_sums { desc.itable_unused } else { 0 };
            if unused > desc.free_inodes || unused > per_group {
                self.problem(
                    "free-inodes",
                    format!(
                        "group {group}: {unused} inodes were never used, but only {} of {per_group} are free",
                        desc.free_inodes
                    ),
                );
            }
            let inodes_uninit = flags & INODE_UNINIT != 0;
            self.groups.push(GroupInfo {
                inodes: if inodes_uninit {
                    0
                } else {
                    per_group.saturating_sub(unused)
                },
                inodes_uninit,
                blocks_uninit: flags & BLOCK_UNINIT != 0,
                directories: 0,
            });
        }
        Ok(())
    }

    /// A descriptor; the superficial check has read it already, so one that
    /// cannot be read any more is an empty one.
    pub(super) fn descriptor(&self, group: u32) -> Result<Group> {
        use crate::ext4::read::Fault;
        match self.fs.group(group) {
            Ok(desc) => Ok(desc),
            Err(Fault::Host(error)) => Err(error),
            Err(Fault::Nonsense(_)) => Ok(Group::decode(&[0; 64])),
        }
    }

    pub(super) fn mark_metadata(&mut self) -> Result<()> {
        for group in 0..self.geometry.groups {
            if group % 64 == 0 {
                self.control.check()?;
            }
            for (first, len) in self.fixed_blocks(group) {
                self.mark(
                    group,
                    "the superblock's copy or the descriptors",
                    first,
                    len,
                );
            }
        }
        if self.sb.has_incompat(incompat::MMP) && self.is_inside(self.sb.s_mmp_block) {
            self.mark(
                0,
                "the block of multiple mount protection",
                self.sb.s_mmp_block,
                1,
            );
        }
        let table_blocks = u64::from(self.geometry.table_blocks);
        for group in 0..self.geometry.groups {
            if group % 64 == 0 {
                self.control.check()?;
            }
            let desc = self.descriptor(group)?;
            self.mark(group, "the inode table", desc.inode_table, table_blocks);
            self.mark(group, "the block bitmap", desc.block_bitmap, 1);
            self.mark(group, "the inode bitmap", desc.inode_bitmap, 1);
        }
        Ok(())
    }

    /// Runs of blocks whose place in a group the geometry tells
    /// (`ext2fs_reserve_super_and_bgd`).
    fn fixed_blocks(&self, group: u32) -> Vec<(u64, u64)> {
        let geometry = self.geometry;
        let mut runs = Vec::new();
        let mut first = geometry.first_block(group);
        // With clusters of more than a block, group 0 begins with the boot block.
        if group == 0 && geometry.block_size == 1024 && geometry.first_data_block == 0 {
            runs.push((0, 1));
            first = 1;
        }
        let superblock = u64::from(has_superblock(self.sb, group));
        if superblock != 0 {
            runs.push((first, 1));
        }
        let meta_bg = self.sb.has_incompat(incompat::META_BG);
        let per_block = geometry.descs_per_block();
        if !meta_bg || group / per_block < self.sb.s_first_meta_bg {
            let descs = if meta_bg {
                u64::from(self.sb.s_first_meta_bg)
            } else {
                let reserved = if self.sb.has_compat(compat::RESIZE_INODE) {
                    self.sb.s_reserved_gdt_blocks
                } else {
                    0
                };
                u64::from(geometry.desc_blocks()) + u64::from(reserved)
            };
            if superblock != 0 {
                runs.push((first + 1, descs));
            }
        } else if [0, 1, per_block - 1].contains(&(group % per_block)) {
            runs.push((first + superblock, 1));
        }
        for run in &mut runs {
            run.1 = run.1.min(geometry.blocks.saturating_sub(run.0));
        }
        runs
    }

    fn mark(&mut self, group: u32, what: &str, first: u64, len: u64) {
        let mut at = first;
        let end = first.saturating_add(len).min(self.geometry.blocks);
        while at < end {
            match self.metadata.insert_range(at, end - at) {
                None => break,
                Some(block) => {
                    self.problem(
                        "metadata-overlap",
                        format!("group {group}: block {block} of {what} is metadata of something else as well"),
                    );
                    at = block + 1;
                    if self.report.more_problems > 0 {
                        break;
                    }
                }
            }
        }
        if first >= u64::from(self.geometry.first_data_block) && first < end {
            // Metadata share clusters among themselves.
            for cluster in self.cluster(first)..=self.cluster(end - 1) {
                self.taken.insert(cluster);
            }
        }
    }
}
