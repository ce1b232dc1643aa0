//! Bitmaps and counts against what is in use (`e2fsck_pass5`).

use super::Deep;
use crate::error::Result;
use crate::ext4::read::features::incompat;
use crate::ext4::read::group_desc::Group;

impl Deep<'_> {
    pub(super) fn bitmaps(&mut self) -> Result<()> {
        let (mut blocks, mut inodes) = (0u64, 0u64);
        for group in 0..self.geometry.groups {
            self.control.check()?;
            let desc = self.descriptor(group)?;
            blocks += u64::from(self.block_bitmap(group, &desc)?);
            inodes += u64::from(self.inode_bitmap(group, &desc)?);
            let directories = self.groups[group as usize].directories;
            if desc.used_dirs != directories {
                self.problem(
                    "directory-count",
                    format!(
                        "group {group}: the descriptor tells {} directories, it has {directories}",
                        desc.used_dirs
                    ),
                );
            }
            self.control.advance(1);
        }
        // The kernel makes the sums anew when it mounts after a crash.
        if self.sb.has_incompat(incompat::RECOVER) {
            return Ok(());
        }
        let blocks = blocks * u64::from(self.geometry.cluster_ratio);
        if self.sb.free_blocks_count != blocks {
            self.problem(
                "free-blocks",
                format!(
                    "the superblock tells {} free blocks, there are {blocks}",
                    self.sb.free_blocks_count
                ),
            );
        }
        if u64::from(self.sb.s_free_inodes_count) != inodes {
            self.problem(
                "free-inodes",
                format!(
                    "the superblock tells {} free inodes, there are {inodes}",
                    self.sb.s_free_inodes_count
                ),
            );
        }
        Ok(())
    }

    /// Returns how many clusters are free.
    fn block_bitmap(&mut self, group: u32, desc: &Group) -> Result<u32> {
        let bits = self.geometry.clusters(group);
        let first = u64::from(group) * u64::from(self.geometry.clusters_per_group);
        let mut raw = self.block_buffer();
        if self.groups[group as usize].blocks_uninit {
            self.metadata_bits(group, &mut raw);
        } else if !self.read_block(desc.block_bitmap, &mut raw)? {
            return Ok(desc.free_clusters);
        }
        let taken = |deep: &Self, word: u32| deep.taken.bits_at(first + u64::from(word) * 64);
        let (free, first_wrong) = compare(&raw, bits, |word| taken(self, word));
        if let Some(bit) = first_wrong {
            let block = u64::from(self.geometry.first_data_block)
                + (first + u64::from(bit)) * u64::from(self.geometry.cluster_ratio);
            let used = raw[bit as usize / 8] >> (bit % 8) & 1 != 0;
            self.problem(
                "block-bitmap",
                format!(
                    "group {group}: block {block} is {} in its bitmap, but {}; it is the first such block",
                    if used { "in use" } else { "free" },
                    if used { "nothing is in it" } else { "something is in it" }
                ),
            );
        }
        if free != desc.free_clusters {
            self.problem(
                "free-blocks",
                format!(
                    "group {group}: the descriptor tells {} free, {free} are",
                    desc.free_clusters
                ),
            );
        }
        Ok(free)
    }

    /// The bitmap of a group's blocks as the kernel makes it at first use: the
    /// metadata in it.
    fn metadata_bits(&self, group: u32, raw: &mut [u8]) {
        let (mut at, end) = (
            self.geometry.first_block(group),
            self.geometry.end_block(group),
        );
        let first = u64::from(group) * u64::from(self.geometry.clusters_per_group);
        while at < end {
            let mut word = self.metadata.bits_at(at);
            while word != 0 {
                let block = at + u64::from(word.trailing_zeros());
                word &= word - 1;
                if block < end {
                    // OK to cut: less than the clusters of a group.
                    let bit = (self.cluster(block) - first) as usize;
                    raw[bit / 8] |= 1 << (bit % 8);
                }
            }
            at += 64;
        }
    }

    /// Returns how many inodes are free.
    fn inode_bitmap(&mut self, group: u32, desc: &Group) -> Result<u32> {
        let bits = self.geometry.inodes_per_group;
        let first = group * bits + 1;
        let mut raw = self.block_buffer();
        if !self.groups[group as usize].inodes_uninit
            && !self.read_block(desc.inode_bitmap, &mut raw)?
        {
            return Ok(desc.free_inodes);
        }
        let used = |word: u32| {
            let begin = word * 64;
            (begin..bits.min(begin + 64))
                .filter(|bit| self.inodes.get(first + bit).used)
                .fold(0, |bits, bit| bits | 1u64 << (bit - begin))
        };
        let (free, first_wrong) = compare(&raw, bits, used);
        if let Some(bit) = first_wrong {
            let marked = raw[bit as usize / 8] >> (bit % 8) & 1 != 0;
            self.problem(
                "inode-bitmap",
                format!(
                    "group {group}: inode {} is {} in its bitmap, but it is {}; it is the first such inode",
                    first + bit,
                    if marked { "in use" } else { "free" },
                    if marked { "free" } else { "in use" }
                ),
            );
        }
        if free != desc.free_inodes {
            self.problem(
                "free-inodes",
                format!(
                    "group {group}: the descriptor tells {} free, {free} are",
                    desc.free_inodes
                ),
            );
        }
        Ok(free)
    }
}

/// Compares the first `bits` bits of a bitmap with words of what is in use.
/// Returns how many are free by the latter, and the first that differs.
fn compare(raw: &[u8], bits: u32, expected: impl Fn(u32) -> u64) -> (u32, Option<u32>) {
    let (mut free, mut first) = (0, None);
    for (number, bytes) in (0u32..).zip(raw.chunks(8)) {
        let begin = number * 64;
        if begin >= bits {
            break;
        }
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let mask = !0u64 >> (64 - (bits - begin).min(64));
        let (found, expected) = (u64::from_le_bytes(word) & mask, expected(number) & mask);
        free += (mask & !expected).count_ones();
        if first.is_none() && found != expected {
            first = Some(begin + (found ^ expected).trailing_zeros());
        }
    }
    (free, first)
}
