//! Every group descriptor and its bitmaps.

use super::report::ImageReport;
use crate::control::Control;
use crate::error::Result;
use crate::ext4::read::bytes::u16_at;
use crate::ext4::read::checksum::crc32c;
use crate::ext4::read::features::incompat;
use crate::ext4::read::geometry::Geometry;
use crate::ext4::read::group_desc::{Group, Sums, BLOCK_UNINIT, CHECKSUM_AT, HALF, INODE_UNINIT};
use crate::ext4::read::image::Image;
use crate::ext4::read::superblock::Superblock;

/// Looks at all groups. Returns the first block of group 0's inode table when
/// it is where one can be.
pub(super) fn verify(
    image: &Image,
    sb: &Superblock,
    geometry: &Geometry,
    report: &mut ImageReport,
    control: &Control,
) -> Result<Option<u64>> {
    let mut check = Check {
        image,
        sb,
        geometry,
        sums: Sums::of(sb),
        bitmap: vec![0; geometry.block_size as usize],
        report,
        free_clusters: 0,
        free_inodes: 0,
        complete: true,
    };
    let mut first_table = None;
    let mut descs = vec![0; geometry.block_size as usize];
    for index in 0..geometry.desc_blocks() {
        control.check()?;
        let block = geometry.desc_block(sb, index);
        if block >= geometry.blocks || !image.read(geometry.byte(block), &mut descs)? {
            check.complete = false;
            check.report.problem(
                "group-position",
                format!("block {block}, with group descriptors, is behind the end"),
            );
            continue;
        }
        let first = index * geometry.descs_per_block();
        for (group, raw) in
            (first..geometry.groups).zip(descs.chunks_exact(geometry.desc_size.into()))
        {
            control.check()?;
            let table = check.group(group, raw)?;
            if group == 0 {
                first_table = table;
            }
        }
    }
    check.totals();
    Ok(first_table)
}

struct Check<'a> {
    image: &'a Image,
    sb: &'a Superblock,
    geometry: &'a Geometry,
    sums: Sums,
    /// One block.
    bitmap: Vec<u8>,
    report: &'a mut ImageReport,
    free_clusters: u64,
    free_inodes: u64,
    /// Whether every descriptor could be read: only then do sums say anything.
    complete: bool,
}

impl Check<'_> {
    fn group(&mut self, group: u32, raw: &[u8]) -> Result<Option<u64>> {
        let desc = Group::decode(raw);
        let stored = u16_at(raw, CHECKSUM_AT);
        if let Some(computed) = self.sums.of_descriptor(group, raw) {
            if computed != stored {
                self.report.problem(
                    "group-checksum",
                    format!(
                        "group {group}: the descriptor's checksum is 0x{stored:04x}, its bytes give 0x{computed:04x}"
                    ),
                );
            }
        }
        self.free_clusters += u64::from(desc.free_clusters);
        self.free_inodes += u64::from(desc.free_inodes);

        let table_blocks = u64::from(self.geometry.table_blocks);
        let block_ok = self.position(group, "block bitmap", desc.block_bitmap, 1);
        let inode_ok = self.position(group, "inode bitmap", desc.inode_bitmap, 1);
        let table_ok = self.position(group, "inode table", desc.inode_table, table_blocks);

        self.limits(group, &desc);
        let flags = match self.sums {
            Sums::None => 0,
            _ => desc.bg_flags,
        };
        if block_ok && flags & BLOCK_UNINIT == 0 {
            self.block_bitmap(group, &desc, raw.len() > HALF)?;
        }
        if inode_ok && flags & INODE_UNINIT == 0 {
            self.inode_bitmap(group, &desc, raw.len() > HALF)?;
        }
        if flags & INODE_UNINIT != 0 {
            if group == 0 {
                self.report.problem(
                    "group-flags",
                    "group 0, which has the root directory, is marked as having no inode".into(),
                );
            }
            if desc.free_inodes != self.geometry.inodes_per_group {
                self.report.problem(
                    "free-inodes",
                    format!(
                        "group {group} is marked as having no inode, but {} of {} are free",
                        desc.free_inodes, self.geometry.inodes_per_group
                    ),
                );
            }
        }
        Ok(table_ok.then_some(desc.inode_table))
    }

    /// Whether blocks of the file system's metadata are where they can be
    /// (the kernel's `ext4_check_descriptors`).
    fn position(&mut self, group: u32, what: &str, block: u64, count: u64) -> bool {
        let geometry = self.geometry;
        // With flex_bg they may lie in any group.
        let (first, end) = if self.sb.has_incompat(incompat::FLEX_BG) {
            (u64::from(geometry.first_data_block), geometry.blocks)
        } else {
            (geometry.first_block(group), geometry.end_block(group))
        };
        if block < first || block.checked_add(count).is_none_or(|behind| behind > end) {
            self.report.problem(
                "group-position",
                format!(
                    "group {group}: the {what} is at block {block} (of {count}); from {first} to {} is possible",
                    end - 1
                ),
            );
            return false;
        }
        let superblock = geometry.superblock_block();
        // Those from s_first_meta_bg on lie in their own groups.
        let descs = if self.sb.has_incompat(incompat::META_BG) {
            self.sb.s_first_meta_bg
        } else {
            geometry.desc_blocks()
        };
        let descs_end = superblock + u64::from(descs);
        if block <= descs_end && block + count > superblock {
            self.report.problem(
                "group-position",
                format!("group {group}: the {what} at block {block} lies upon the superblock or the descriptors"),
            );
            return false;
        }
        true
    }

    fn limits(&mut self, group: u32, desc: &Group) {
        let geometry = self.geometry;
        for (what, code, value, most) in [
            (
                "free blocks",
                "free-blocks",
                desc.free_clusters,
                geometry.clusters(group),
            ),
            (
                "free inodes",
                "free-inodes",
                desc.free_inodes,
                geometry.inodes_per_group,
            ),
            (
                "unused inodes",
                "free-inodes",
                // Without checksums it means nothing.
                if matches!(self.sums, Sums::None) {
                    0
                } else {
                    desc.itable_unused
                },
                geometry.inodes_per_group,
            ),
        ] {
            if value > most {
                self.report.problem(
                    code,
                    format!("group {group}: the descriptor tells {value} {what} of at most {most}"),
                );
            }
        }
    }

    fn block_bitmap(&mut self, group: u32, desc: &Group, wide: bool) -> Result<()> {
        let bits = self.geometry.clusters(group);
        self.bitmap(&Bitmap {
            what: "block bitmap",
            group,
            block: desc.block_bitmap,
            bits,
            summed_bits: self.geometry.clusters_per_group,
            checksum: desc.block_bitmap_csum,
            wide,
            free: desc.free_clusters,
            code: "free-blocks",
        })
    }

    fn inode_bitmap(&mut self, group: u32, desc: &Group, wide: bool) -> Result<()> {
        self.bitmap(&Bitmap {
            what: "inode bitmap",
            group,
            block: desc.inode_bitmap,
            bits: self.geometry.inodes_per_group,
            summed_bits: self.geometry.inodes_per_group,
            checksum: desc.inode_bitmap_csum,
            wide,
            free: desc.free_inodes,
            code: "free-inodes",
        })?;
        // OK to read the buffer: it is this bitmap's. The first 10 inodes are
        // the file system's own; number 2, the root directory, is in use.
        if group == 0 && self.bitmap[0] & 0b10 == 0 {
            self.report.problem(
                "root-inode",
                "inode 2, the root directory, is marked as free in its bitmap".into(),
            );
        }
        Ok(())
    }

    fn bitmap(&mut self, bitmap: &Bitmap) -> Result<()> {
        let Bitmap { what, group, .. } = *bitmap;
        if !self
            .image
            .read(self.geometry.byte(bitmap.block), &mut self.bitmap)?
        {
            self.report.problem(
                "truncated",
                format!(
                    "group {group}: the {what} at block {} is behind the end of the file",
                    bitmap.block
                ),
            );
            return Ok(());
        }
        if let Sums::Crc32c(seed) = self.sums {
            // Descriptors of 32 bytes keep the low half only.
            let mask = if bitmap.wide { !0 } else { 0xffff };
            let computed = crc32c(seed, &self.bitmap[..bitmap.summed_bits as usize / 8]) & mask;
            if computed != bitmap.checksum {
                self.report.problem(
                    "bitmap-checksum",
                    format!(
                        "group {group}: the {what}'s checksum is 0x{:08x}, its bytes give 0x{computed:08x}",
                        bitmap.checksum
                    ),
                );
            }
        }
        let (free, padded) = count(&self.bitmap, bitmap.bits);
        if free != bitmap.free {
            self.report.problem(
                bitmap.code,
                format!(
                    "group {group}: the descriptor tells {} free, the {what} has {free}",
                    bitmap.free
                ),
            );
        }
        if !padded {
            // e2fsck: "Padding at end of inode bitmap is not set".
            self.report.problem(
                "bitmap-padding",
                format!("group {group}: bits of the {what} that stand for nothing are not set"),
            );
        }
        Ok(())
    }

    fn totals(&mut self) {
        // While it is mounted the kernel keeps the sums elsewhere; that is a
        // problem of its own already.
        if !self.complete || self.sb.has_incompat(incompat::RECOVER) {
            return;
        }
        let free_blocks = self.free_clusters * u64::from(self.geometry.cluster_ratio);
        if free_blocks != self.sb.free_blocks_count {
            self.report.problem(
                "free-blocks",
                format!(
                    "the superblock tells {} free blocks, the groups have {free_blocks}",
                    self.sb.free_blocks_count
                ),
            );
        }
        if self.free_inodes != u64::from(self.sb.s_free_inodes_count) {
            self.report.problem(
                "free-inodes",
                format!(
                    "the superblock tells {} free inodes, the groups have {}",
                    self.sb.s_free_inodes_count, self.free_inodes
                ),
            );
        }
    }
}

struct Bitmap {
    what: &'static str,
    group: u32,
    block: u64,
    /// Bits that stand for something.
    bits: u32,
    /// Bits the checksum covers.
    summed_bits: u32,
    /// As the descriptor tells it.
    checksum: u32,
    /// Whether the descriptor has the checksum's high half.
    wide: bool,
    /// Zero bits, as the descriptor tells it.
    free: u32,
    code: &'static str,
}

/// How many of the first `bits` bits are zero, and whether all others are one.
fn count(bitmap: &[u8], bits: u32) -> (u32, bool) {
    let whole = bits as usize / 8;
    let mut free: u32 = bitmap[..whole].iter().map(|byte| byte.count_zeros()).sum();
    let mut padded = true;
    let mut rest = whole;
    if !bits.is_multiple_of(8) {
        let used = (1u8 << (bits % 8)) - 1;
        let byte = bitmap[whole];
        free += (byte | !used).count_zeros();
        padded = byte | used == 0xff;
        rest += 1;
    }
    (
        free,
        padded && bitmap[rest..].iter().all(|byte| *byte == 0xff),
    )
}
