//! Where things are, if the superblock's numbers make sense.

use super::features::{compat, incompat, ro_compat};
use super::superblock::Superblock;

/// More groups than that are not looked at. With 4 KiB blocks the largest file
/// system that ext4 has (1 EiB) would have 2^33, but 16 TiB have 2^17; the bound
/// is there so that a hostile superblock cannot keep the check busy for hours.
const MAX_GROUPS: u64 = 1 << 24;

/// The numbers that the rest of the check computes with. All of them were
/// compared with the file's size, so that positions fit in 64 bits.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// In bytes: 1,024 to 65,536.
    pub block_size: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    /// The block that group 0 begins with: 1 with blocks of 1 KiB, or 0.
    pub first_data_block: u32,
    /// Block groups.
    pub groups: u32,
    /// Blocks of a group, but the last.
    pub blocks_per_group: u32,
    /// Blocks of a cluster: 1 without `bigalloc`.
    pub cluster_ratio: u32,
    /// Bits of a block bitmap.
    pub clusters_per_group: u32,
    /// Bits of an inode bitmap.
    pub inodes_per_group: u32,
    /// Blocks of an inode table.
    pub table_blocks: u32,
    /// Bytes of an inode.
    pub inode_size: u16,
    /// Bytes of a group descriptor.
    pub desc_size: u16,
}

impl Geometry {
    /// `None` when the numbers make no sense, `size` being that of the file in
    /// bytes; each reason is given to `problem` as a code and a sentence. The
    /// rules are those of the kernel's mount (`ext4_fill_super`).
    pub fn of(
        sb: &Superblock,
        size: u64,
        mut problem: impl FnMut(&'static str, String),
    ) -> Option<Self> {
        let mut sound = true;
        let mut bad = |text: String| {
            sound = false;
            problem("geometry", text);
        };

        let Some(block_size) = sb.block_size() else {
            bad(format!(
                "s_log_block_size is {}; at most 6 (64 KiB) is possible",
                sb.s_log_block_size
            ));
            return None;
        };
        let bigalloc = sb.has_ro_compat(ro_compat::BIGALLOC);
        // Without bigalloc these are the fields of the fragments that ext2 never
        // had; the kernel looks at the size, ext2fs_open at both.
        if !bigalloc
            && (sb.s_log_cluster_size != sb.s_log_block_size
                || sb.s_clusters_per_group != sb.s_blocks_per_group)
        {
            bad(format!(
                "without bigalloc a cluster is a block, but s_log_cluster_size is {}, s_clusters_per_group {}",
                sb.s_log_cluster_size, sb.s_clusters_per_group
            ));
        }
        // ext2fs_open, with flex_bg and without.
        if sb.s_log_groups_per_flex > 31 {
            bad(format!(
                "s_log_groups_per_flex is {}; at most 31 is possible",
                sb.s_log_groups_per_flex
            ));
        }
        let cluster_bits = if bigalloc {
            sb.s_log_cluster_size
                .checked_sub(sb.s_log_block_size)
                .filter(|bits| *bits <= 16)
        } else {
            Some(0)
        };
        let Some(cluster_bits) = cluster_bits else {
            bad(format!(
                "s_log_cluster_size is {}, with blocks of {block_size} bytes",
                sb.s_log_cluster_size
            ));
            return None;
        };
        let cluster_ratio = 1u32 << cluster_bits;
        let bitmap_bits = block_size * 8;

        let clusters_per_group = if bigalloc {
            sb.s_clusters_per_group
        } else {
            sb.s_blocks_per_group
        };
        if clusters_per_group == 0
            || clusters_per_group > bitmap_bits
            || !clusters_per_group.is_multiple_of(8)
        {
            bad(format!(
                "a group has {clusters_per_group} blocks or clusters; a bitmap of one block holds 8 to {bitmap_bits}, by eights"
            ));
        }
        if u64::from(sb.s_blocks_per_group)
            != u64::from(clusters_per_group) * u64::from(cluster_ratio)
        {
            bad(format!(
                "s_blocks_per_group is {}, but a group has {clusters_per_group} clusters of {cluster_ratio} blocks",
                sb.s_blocks_per_group
            ));
        }
        if !sb.s_inode_size.is_power_of_two()
            || sb.s_inode_size < 128
            || u32::from(sb.s_inode_size) > block_size
        {
            bad(format!(
                "s_inode_size is {}; a power of two from 128 to the block size is expected",
                sb.s_inode_size
            ));
        }
        let wide = sb.has_incompat(incompat::SIXTY_FOUR_BIT);
        if !sb.s_desc_size.is_power_of_two()
            || sb.s_desc_size < if wide { 64 } else { 32 }
            || sb.s_desc_size > 1024
        {
            bad(format!(
                "s_desc_size is {}; a power of two from 64 to 1,024 is expected",
                sb.s_desc_size
            ));
        }
        let expected_first = u32::from(block_size == 1024 && cluster_ratio == 1);
        if sb.s_first_data_block != expected_first {
            bad(format!(
                "s_first_data_block is {}, not {expected_first}",
                sb.s_first_data_block
            ));
        } else if bigalloc && expected_first != 0 {
            // e2fsck takes it, the kernel does not.
            bad("bigalloc with blocks of 1 KiB needs larger clusters".into());
        }
        if sb.blocks_count <= u64::from(sb.s_first_data_block) {
            bad(format!("s_blocks_count is {}", sb.blocks_count));
        }
        if sb.s_inodes_per_group == 0
            || sb.s_inodes_per_group > bitmap_bits
            || !sb.s_inodes_per_group.is_multiple_of(8)
        {
            bad(format!(
                "s_inodes_per_group is {}; a bitmap of one block holds 8 to {bitmap_bits}, by eights",
                sb.s_inodes_per_group
            ));
        }
        if u32::from(sb.s_reserved_gdt_blocks) > block_size / 4 {
            bad(format!(
                "s_reserved_gdt_blocks is {}; at most {} is possible",
                sb.s_reserved_gdt_blocks,
                block_size / 4
            ));
        }
        let wanted = sb.blocks_count.checked_mul(u64::from(block_size));
        if wanted.is_none_or(|wanted| wanted > size) {
            sound = false;
            problem(
                "truncated",
                format!(
                    "the file system has {} blocks of {block_size} bytes, but the file has {size} bytes",
                    sb.blocks_count
                ),
            );
        }
        if !sound {
            return None;
        }

        let groups = (sb.blocks_count - u64::from(sb.s_first_data_block))
            .div_ceil(u64::from(sb.s_blocks_per_group));
        if groups > MAX_GROUPS {
            problem(
                "geometry",
                format!("the file system has {groups} groups; at most {MAX_GROUPS} are looked at"),
            );
            return None;
        }
        // OK to cut: just compared.
        let groups = groups as u32;
        if u64::from(groups) * u64::from(sb.s_inodes_per_group) != u64::from(sb.s_inodes_count) {
            problem(
                "geometry",
                format!(
                    "s_inodes_count is {}, but there are {groups} groups of {} inodes",
                    sb.s_inodes_count, sb.s_inodes_per_group
                ),
            );
            return None;
        }
        let geometry = Self {
            block_size,
            blocks: sb.blocks_count,
            first_data_block: sb.s_first_data_block,
            groups,
            blocks_per_group: sb.s_blocks_per_group,
            cluster_ratio,
            clusters_per_group,
            inodes_per_group: sb.s_inodes_per_group,
            // At most 2^19 inodes of at most 2^16 bytes.
            table_blocks: (u64::from(sb.s_inodes_per_group) * u64::from(sb.s_inode_size))
                .div_ceil(u64::from(block_size)) as u32,
            inode_size: sb.s_inode_size,
            desc_size: sb.s_desc_size,
        };
        if sb.has_incompat(incompat::META_BG) && sb.s_first_meta_bg > geometry.desc_blocks() {
            problem(
                "geometry",
                format!(
                    "s_first_meta_bg is {}, but there are {} blocks of descriptors",
                    sb.s_first_meta_bg,
                    geometry.desc_blocks()
                ),
            );
            return None;
        }
        if sb.has_incompat(incompat::META_BG) && sb.has_compat(compat::RESIZE_INODE) {
            // ext4_feature_set_ok: both say where descriptors of a grown file
            // system are.
            problem(
                "geometry",
                "the features meta_bg and resize_inode exclude each other".into(),
            );
        }
        Some(geometry)
    }

    /// Descriptors of a block.
    #[must_use]
    pub const fn descs_per_block(&self) -> u32 {
        self.block_size / self.desc_size as u32
    }

    /// Blocks of group descriptors.
    #[must_use]
    pub const fn desc_blocks(&self) -> u32 {
        self.groups.div_ceil(self.descs_per_block())
    }

    /// The block with the superblock.
    #[must_use]
    pub const fn superblock_block(&self) -> u64 {
        (self.block_size == 1024) as u64
    }

    /// The block with the descriptors of number `index * descs_per_block` and on
    /// (the kernel's `descriptor_loc`).
    #[must_use]
    pub fn desc_block(&self, sb: &Superblock, index: u32) -> u64 {
        if !sb.has_incompat(incompat::META_BG) || index < sb.s_first_meta_bg {
            return self.superblock_block() + 1 + u64::from(index);
        }
        let group = index * self.descs_per_block();
        let mut skip = u64::from(has_superblock(sb, group));
        // Group 0 begins before the superblock's block then.
        if self.block_size == 1024 && index == 0 && self.first_data_block == 0 {
            skip += 1;
        }
        self.first_block(group) + skip
    }

    /// The first block of a group.
    #[must_use]
    pub fn first_block(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// The block behind a group.
    #[must_use]
    pub fn end_block(&self, group: u32) -> u64 {
        self.blocks
            .min(self.first_block(group) + u64::from(self.blocks_per_group))
    }

    /// How many bits of a group's block bitmap stand for something. The last
    /// cluster may be cut.
    #[must_use]
    pub fn clusters(&self, group: u32) -> u32 {
        let blocks = self.end_block(group) - self.first_block(group);
        // OK to cut: at most `clusters_per_group`.
        blocks.div_ceil(u64::from(self.cluster_ratio)) as u32
    }

    /// A block's first byte.
    #[must_use]
    pub fn byte(&self, block: u64) -> u64 {
        block * u64::from(self.block_size)
    }
}

/// Whether a group begins with a copy of the superblock (`ext4_bg_has_super`).
#[must_use]
pub fn has_superblock(sb: &Superblock, group: u32) -> bool {
    if group == 0 {
        return true;
    }
    if sb.has_compat(compat::SPARSE_SUPER2) {
        return sb.s_backup_bgs.contains(&group);
    }
    if group == 1 || !sb.has_ro_compat(ro_compat::SPARSE_SUPER) {
        return true;
    }
    [3, 5, 7].into_iter().any(|base| is_power(group, base))
}

/// Whether a number above 0 is a power of another, 1 among them.
#[must_use]
pub const fn is_power(mut number: u32, base: u32) -> bool {
    while number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}
