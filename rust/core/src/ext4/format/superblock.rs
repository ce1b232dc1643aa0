//! The superblock (`struct ext4_super_block`), 1,024 bytes at byte 1,024.

use super::checksum::Checksum;
use super::features::Features;
use super::{high32, low32, put_u16, put_u32, put_u64, BlockSize};

/// Where the primary superblock begins, in bytes.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Its size in bytes.
pub const SUPERBLOCK_SIZE: usize = 1024;
/// `s_magic`
pub const MAGIC: u16 = 0xef53;
/// `s_def_hash_version` half_md4 (`EXT4_HASH_HALF_MD4` in the kernel's terms;
/// whether signed is said by `s_flags`).
const HASH_HALF_MD4: u8 = 1;
/// `s_flags`: names are hashed as signed chars, as on x86. Fixed, so that the
/// image does not depend on the machine that makes it.
const FLAGS_SIGNED_HASH: u32 = 1;
/// `s_default_mount_opts`: `user_xattr,acl`, as mke2fs sets it.
const DEFAULT_MOUNT_OPTIONS: u32 = 0x0004 | 0x0008;

/// What the superblock says. All counts are of the whole file system.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Size of a block.
    pub block_size: BlockSize,
    /// Inodes.
    pub inodes: u32,
    /// Blocks.
    pub blocks: u64,
    /// Blocks only root may fill.
    pub reserved_blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Free inodes.
    pub free_inodes: u32,
    /// Blocks used by the file system itself: descriptors, bitmaps, tables and
    /// the journal (`s_overhead_clusters`).
    pub overhead_blocks: u64,
    /// Inodes in a group.
    pub inodes_per_group: u32,
    /// Descriptor blocks reserved behind the used ones.
    pub reserved_gdt_blocks: u16,
    /// UUID.
    pub uuid: [u8; 16],
    /// Seed of the directories' hash.
    pub hash_seed: [u8; 16],
    /// Label, padded with NUL.
    pub label: [u8; 16],
    /// Seconds since 1970 of the making.
    pub mkfs_time: u32,
    /// Seconds since 1970 of the last writing and checking.
    pub write_time: u32,
    /// Features.
    pub features: Features,
    /// A copy of the journal inode's `i_block`, and its size in bytes.
    pub journal: Option<([u8; 60], u64)>,
}

impl Superblock {
    /// The copy that lies in group `group`.
    #[must_use]
    pub fn encode(&self, group: u32) -> [u8; SUPERBLOCK_SIZE] {
        let mut raw = [0; SUPERBLOCK_SIZE];
        let f = &self.features;
        put_u32(&mut raw, 0x00, self.inodes); // s_inodes_count
        put_u32(&mut raw, 0x04, low32(self.blocks)); // s_blocks_count_lo
        put_u32(&mut raw, 0x08, low32(self.reserved_blocks)); // s_r_blocks_count_lo
        put_u32(&mut raw, 0x0c, low32(self.free_blocks)); // s_free_blocks_count_lo
        put_u32(&mut raw, 0x10, self.free_inodes); // s_free_inodes_count
        put_u32(&mut raw, 0x14, self.block_size.first_block()); // s_first_data_block
        put_u32(&mut raw, 0x18, self.block_size.bits() - 10); // s_log_block_size
        put_u32(&mut raw, 0x1c, self.block_size.bits() - 10); // s_log_cluster_size
        put_u32(&mut raw, 0x20, self.block_size.blocks_per_group()); // s_blocks_per_group
        put_u32(&mut raw, 0x24, self.block_size.blocks_per_group()); // s_clusters_per_group
        put_u32(&mut raw, 0x28, self.inodes_per_group); // s_inodes_per_group
        put_u32(&mut raw, 0x30, self.write_time); // s_wtime
        put_u16(&mut raw, 0x36, u16::MAX); // s_max_mnt_count: never check by count
        put_u16(&mut raw, 0x38, MAGIC); // s_magic
        put_u16(&mut raw, 0x3a, 1); // s_state: clean (EXT4_VALID_FS)
        put_u16(&mut raw, 0x3c, 1); // s_errors: continue
        put_u32(&mut raw, 0x40, self.write_time); // s_lastcheck
        put_u32(&mut raw, 0x4c, 1); // s_rev_level: dynamic
        put_u32(&mut raw, 0x54, super::FIRST_INODE); // s_first_ino
        put_u16(&mut raw, 0x58, super::INODE_SIZE as u16); // s_inode_size
                                                           // s_block_group_nr has 16 bits: backups beyond group 65,535 wrap, as
                                                           // mke2fs lets them.
        put_u16(&mut raw, 0x5a, super::low16(group));
        put_u32(&mut raw, 0x5c, f.compat.bits()); // s_feature_compat
        put_u32(&mut raw, 0x60, f.incompat.bits()); // s_feature_incompat
        put_u32(&mut raw, 0x64, f.ro_compat.bits()); // s_feature_ro_compat
        raw[0x68..0x78].copy_from_slice(&self.uuid); // s_uuid
        raw[0x78..0x88].copy_from_slice(&self.label); // s_volume_name
        put_u16(&mut raw, 0xce, self.reserved_gdt_blocks); // s_reserved_gdt_blocks
        raw[0xec..0xfc].copy_from_slice(&self.hash_seed); // s_hash_seed
        raw[0xfc] = HASH_HALF_MD4; // s_def_hash_version
                                   // s_desc_size is 0 where it cannot be but 32.
        let descriptor = if f.descriptor_size() == 32 { 0 } else { 64 };
        put_u16(&mut raw, 0xfe, descriptor); // s_desc_size
        put_u32(&mut raw, 0x100, DEFAULT_MOUNT_OPTIONS); // s_default_mount_opts
        put_u32(&mut raw, 0x108, self.mkfs_time); // s_mkfs_time
        if let Some((map, size)) = &self.journal {
            put_u32(&mut raw, 0xe0, super::JOURNAL_INODE); // s_journal_inum
            raw[0xfd] = 1; // s_jnl_backup_type: s_jnl_blocks is valid
            raw[0x10c..0x148].copy_from_slice(map); // s_jnl_blocks
            put_u32(&mut raw, 0x148, high32(*size));
            put_u32(&mut raw, 0x14c, low32(*size));
        }
        put_u32(&mut raw, 0x150, high32(self.blocks)); // s_blocks_count_hi
        put_u32(&mut raw, 0x154, high32(self.reserved_blocks)); // s_r_blocks_count_hi
        put_u32(&mut raw, 0x158, high32(self.free_blocks)); // s_free_blocks_hi
        put_u16(&mut raw, 0x15c, super::inode::EXTRA_ISIZE); // s_min_extra_isize
        put_u16(&mut raw, 0x15e, super::inode::EXTRA_ISIZE); // s_want_extra_isize
        put_u32(&mut raw, 0x160, FLAGS_SIGNED_HASH); // s_flags
        raw[0x174] = self.block_size.log_groups_per_flex() as u8; // s_log_groups_per_flex
        raw[0x175] = u8::from(f.has_checksums()); // s_checksum_type: 1 is crc32c
        put_u64(&mut raw, 0x178, 0); // s_kbytes_written
                                     // s_overhead_clusters has 32 bits; 0 lets the kernel count by itself.
        put_u32(
            &mut raw,
            0x248,
            u32::try_from(self.overhead_blocks).unwrap_or(0),
        );
        let fresh = if f.has_checksums() {
            Checksum::new()
        } else {
            Checksum::off()
        };
        let checksum = fresh.bytes(&raw[..0x3fc]).value();
        put_u32(&mut raw, 0x3fc, checksum); // s_checksum
        raw
    }
}
