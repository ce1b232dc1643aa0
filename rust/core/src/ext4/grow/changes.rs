//! What growing changes. Blocks beyond the old end are written at once, for
//! nothing looks there yet; those that the old file system has are collected.

use std::collections::BTreeMap;

use super::bitmap;
use super::descriptor::{bitmap_sum, Descriptor};
use super::disk::Disk;
use super::inode;
use super::place::{batches, Batch};
use super::resize_inode::ResizeInode;
use super::shape::Shape;
use super::superblock::Superblock;
use crate::control::Control;
use crate::error::Result;
use crate::ext4::format::group_desc::GroupFlags;
use crate::ext4::read::features::{compat, incompat};
use crate::ext4::read::group_desc::{Sums, BLOCK_UNINIT};

/// Blocks of the old file system and what they will hold.
pub(super) struct Changes<'a> {
    pub(super) disk: &'a mut Disk,
    old: &'a Shape,
    new: &'a Shape,
    sums: Sums,
    /// What changes together.
    blocks: BTreeMap<u64, Vec<u8>>,
    /// Blocks of descriptors by their index: all that changed.
    descriptors: BTreeMap<u32, Vec<u8>>,
    free_blocks: u64,
    overhead: u64,
}

/// See [`Changes::make`].
pub(super) struct Changed {
    /// What has to change together, but for the superblock.
    pub(super) blocks: BTreeMap<u64, Vec<u8>>,
    /// Copies in the old part, which are looked at only when the first is lost:
    /// (byte, bytes).
    pub(super) copies: Vec<(u64, Vec<u8>)>,
    /// The new superblock.
    pub(super) superblock: Superblock,
}

impl<'a> Changes<'a> {
    /// Writes what lies beyond the old end, and tells what has to change before.
    pub(super) fn make(
        disk: &'a mut Disk,
        old: &'a Shape,
        new: &'a Shape,
        sb: &Superblock,
        file_end: u64,
        control: &Control,
    ) -> Result<Changed> {
        let mut changes = Self {
            disk,
            old,
            new,
            sums: Sums::of(&sb.fields()),
            blocks: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            free_blocks: 0,
            overhead: 0,
        };
        changes.extend_last_group()?;
        if let Some(inode) = ResizeInode::open(changes.disk, old, &sb.fields())? {
            if let Some(block) = inode.update(&mut changes, old, new, &sb.fields())? {
                changes.free(block)?;
            }
        }
        for batch in batches(new, old.groups) {
            control.check()?;
            changes.add(&batch, file_end)?;
        }
        let superblock = changes.superblock(sb);
        let copies = changes.write_descriptors(&superblock)?;
        Ok(Changed {
            blocks: changes.blocks,
            copies,
            superblock,
        })
    }

    /// A block of the old file system, to be changed.
    pub(super) fn load(&mut self, block: u64) -> Result<&mut Vec<u8>> {
        if !self.blocks.contains_key(&block) {
            let bytes = inode::read_block(self.disk, self.old, block)?;
            self.blocks.insert(block, bytes);
        }
        // Just put there when it was not.
        Ok(self.blocks.entry(block).or_default())
    }

    /// A block of the old file system gets these bytes.
    pub(super) fn replace(&mut self, block: u64, bytes: Vec<u8>) -> Result<()> {
        *self.load(block)? = bytes;
        Ok(())
    }

    fn descriptor(&mut self, group: u32) -> Result<Descriptor<'_>> {
        let per = self.new.descs_per_block();
        let index = group / per;
        if !self.descriptors.contains_key(&index) {
            let block = if index < self.old.desc_blocks() {
                inode::read_block(self.disk, self.old, self.old.desc_block(index))?
            } else {
                vec![0; self.new.block_size as usize]
            };
            self.descriptors.insert(index, block);
        }
        let block = self.descriptors.entry(index).or_default();
        let size = self.new.desc_size as usize;
        let at = (group % per) as usize * size;
        Ok(Descriptor(&mut block[at..at + size]))
    }

    /// Changes some bits of an old group's block bitmap, where it has one, and
    /// its counts: these blocks are free now.
    fn free_in(&mut self, group: u32, bits: std::ops::Range<u64>) -> Result<()> {
        let count = bits.end - bits.start;
        let fields = self.descriptor(group)?.fields();
        let (sums, per_group) = (self.sums, self.new.per_group);
        let mut sum = None;
        if !self.has_flags() || fields.bg_flags & BLOCK_UNINIT == 0 {
            let bitmap = self.load(fields.block_bitmap)?;
            bitmap::fill(bitmap, bits, false);
            sum = bitmap_sum(sums, bitmap, per_group);
        }
        let mut descriptor = self.descriptor(group)?;
        // OK to cut: at most the bits of a block.
        descriptor.put_free_blocks(fields.free_clusters.saturating_add(count as u32));
        if let Some(sum) = sum {
            descriptor.put_block_bitmap_sum(sum);
        }
        descriptor.seal(group, sums);
        self.free_blocks += count;
        Ok(())
    }

    /// Whether descriptors tell what was never initialised.
    const fn has_flags(&self) -> bool {
        !matches!(self.sums, Sums::None)
    }

    fn extend_last_group(&mut self) -> Result<()> {
        let last = self.old.groups - 1;
        let start = self.old.start(last);
        let (before, after) = (self.old.end(last), self.new.end(last));
        if before == after {
            return Ok(());
        }
        self.free_in(last, before - start..after - start)
    }

    fn free(&mut self, block: u64) -> Result<()> {
        let Some(group) = self.old.group_of(block) else {
            return Ok(());
        };
        let bit = block - self.old.start(group);
        self.free_in(group, bit..bit + 1)
    }

    /// Descriptors and bitmaps of new groups, and zeros for their tables.
    fn add(&mut self, batch: &Batch, file_end: u64) -> Result<()> {
        let new = self.new;
        // Whatever a device had there; a file's new part is a hole.
        let lazily = self.has_flags() && self.disk.is_device();
        for (group, placed) in batch.groups.clone().zip(&batch.placed) {
            let (start, end) = (new.start(group), new.end(group));
            let area = new.area(group);
            let mut used = vec![area.clone()];
            used.extend(batch.used.iter().filter_map(|range| {
                let cut = range.start.max(start)..range.end.min(end);
                (cut.start < cut.end).then_some(cut)
            }));
            let count: u64 = used.iter().map(|range| range.end - range.start).sum();
            let mut flags = GroupFlags::empty();
            if self.has_flags() {
                flags |= GroupFlags::INODE_UNINIT;
                if !lazily {
                    flags |= GroupFlags::INODE_ZEROED;
                }
                // The kernel computes such a bitmap from the group's own blocks
                // (ext4_init_block_bitmap). Not so in the last group, whose
                // padding must be there (ext2fs_initialize).
                if group + 1 < new.groups && (batch.apart || used.len() == 1) {
                    flags |= GroupFlags::BLOCK_UNINIT;
                }
            }
            let bitmap = (!flags.contains(GroupFlags::BLOCK_UNINIT)).then(|| {
                let mut bitmap = bitmap::padded(new.block_size, end - start);
                for range in &used {
                    bitmap::fill(&mut bitmap, range.start - start..range.end - start, true);
                }
                bitmap
            });
            // OK to cut: at most the bits of a block.
            let free = (end - start - count) as u32;
            let sums = self.sums;
            let sum = bitmap
                .as_ref()
                .and_then(|bitmap| bitmap_sum(sums, bitmap, new.per_group));
            let mut descriptor = self.descriptor(group)?;
            descriptor.fill(new, placed, free, flags);
            if let Some(sum) = sum {
                descriptor.put_block_bitmap_sum(sum);
            }
            descriptor.seal(group, sums);
            self.free_blocks += u64::from(free);
            let table = u64::from(new.table_blocks());
            self.overhead += area.end - area.start + 2 + table;
            if let Some(bitmap) = bitmap {
                self.disk.write(new.byte(placed.block_bitmap), &bitmap)?;
            }
            if !self.has_flags() {
                let inodes = bitmap::padded(new.block_size, u64::from(new.inodes_per_group));
                self.disk.write(new.byte(placed.inode_bitmap), &inodes)?;
            }
            let bytes = new.byte(placed.inode_table)..new.byte(placed.inode_table + table);
            if !lazily && bytes.start < file_end {
                self.disk.zero(bytes.start..bytes.end.min(file_end))?;
            }
        }
        Ok(())
    }

    fn superblock(&self, old: &Superblock) -> Superblock {
        let new = self.new;
        let was = old.fields();
        let mut sb = old.clone();
        let more = new.groups - self.old.groups;
        let inodes = new.groups * new.inodes_per_group;
        sb.put_u32(0x00, inodes); // s_inodes_count
        sb.put_u32(
            0x10, // s_free_inodes_count
            was.s_free_inodes_count
                .saturating_add(more * new.inodes_per_group),
        );
        sb.put_wide(0x04, 0x150, new.blocks);
        let free = was.free_blocks_count.saturating_add(self.free_blocks);
        sb.put_wide(0x0c, 0x158, free);
        // Only root's share stays what it was, as resize2fs has it.
        let reserved = u128::from(was.reserved_blocks_count) * u128::from(new.blocks)
            / u128::from(self.old.blocks);
        sb.put_wide(0x08, 0x154, u64::try_from(reserved).unwrap_or(0));
        sb.put_u16(0xce, new.reserved as u16); // OK to cut: at most the old number.
        if let Some(first) = new.first_meta {
            sb.put_u32(0x104, first); // s_first_meta_bg
        }
        sb.set(0x60, incompat::META_BG, new.first_meta.is_some());
        sb.set(0x5c, compat::RESIZE_INODE, new.resize_inode);
        let overhead = u64::from(was.s_overhead_clusters);
        if overhead != 0 {
            // s_overhead_clusters; 0 lets the kernel count.
            let sum = u32::try_from(overhead + self.overhead).unwrap_or(0);
            sb.put_u32(0x248, sum);
        }
        sb
    }

    /// Puts the descriptors where they belong and tells the copies in the old
    /// part, of the superblock as well.
    fn write_descriptors(&mut self, sb: &Superblock) -> Result<Vec<(u64, Vec<u8>)>> {
        let (old, new) = (self.old, self.new);
        let backups = new.backups();
        let mut copies = Vec::new();
        let old_end = old.byte(old.blocks);
        let descriptors = std::mem::take(&mut self.descriptors);
        for (&index, block) in &descriptors {
            let at = new.desc_block(index);
            if at < old.blocks {
                self.replace(at, block.clone())?;
            } else {
                self.disk.write(new.byte(at), block)?;
            }
        }
        // Copies in new groups need all blocks of descriptors, also those that
        // did not change.
        for index in 0..new.desc_blocks() {
            let changed = descriptors.get(&index);
            let targets = new.desc_copies(index, &backups);
            let wanted: Vec<u64> = targets
                .into_iter()
                .filter(|&at| at >= old.blocks || changed.is_some())
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let block = match changed {
                Some(block) => block.clone(),
                None => inode::read_block(self.disk, old, old.desc_block(index))?,
            };
            for at in wanted {
                if at < old.blocks {
                    copies.push((new.byte(at), block.clone()));
                } else {
                    self.disk.write(new.byte(at), &block)?;
                }
            }
        }
        for group in backups {
            let at = new.byte(new.start(group));
            if at < old_end {
                copies.push((at, sb.copy_for(group).to_vec()));
            } else {
                self.disk.write(at, &sb.copy_for(group))?;
            }
        }
        Ok(copies)
    }
}
