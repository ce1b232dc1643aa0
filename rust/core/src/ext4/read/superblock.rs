//! The superblock (`struct ext4_super_block`), read.

use super::bytes::{hilo, u16_at, u32_at, u64_at};
use super::checksum::crc32c;
use super::features::{compat, incompat, ro_compat};

/// Where the superblock begins, whatever the block size.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Its size in bytes.
pub const SUPERBLOCK_SIZE: usize = 1024;
/// `EXT4_SUPER_MAGIC`
pub const MAGIC: u16 = 0xef53;
/// Where the magic number is in the superblock.
pub const MAGIC_AT: u64 = 0x38;
/// Where `s_checksum` is in the superblock: it covers all before it.
const CHECKSUM_AT: usize = 0x3fc;

/// `EXT4_VALID_FS`: unmounted cleanly.
pub const STATE_VALID: u16 = 0x1;
/// `EXT4_ERROR_FS`: the kernel met an error.
pub const STATE_ERROR: u16 = 0x2;
/// `EXT4_GOOD_OLD_REV`: inode size and features are not told but fixed.
const GOOD_OLD_REV: u32 = 0;
/// `EXT4_CRC32C_CHKSUM`, the only `s_checksum_type`.
pub const CHECKSUM_CRC32C: u8 = 1;

/// `s_flags`: names are hashed as signed chars.
pub const FLAG_SIGNED_HASH: u32 = 0x1;
/// `s_flags`: names are hashed as unsigned chars.
pub const FLAG_UNSIGNED_HASH: u32 = 0x2;

/// Where the journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// There is none.
    #[default]
    None,
    /// In the inode of that number.
    Internal(u32),
    /// On the device with that UUID.
    External([u8; 16]),
}

/// The superblock's fields, by the kernel's names; pairs of halves are joined
/// and bear no `s_`.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Inodes in all.
    pub s_inodes_count: u32,
    /// Blocks in all.
    pub blocks_count: u64,
    /// Blocks that only root may take.
    pub reserved_blocks_count: u64,
    /// Free blocks.
    pub free_blocks_count: u64,
    /// Free inodes.
    pub s_free_inodes_count: u32,
    /// The block that group 0 begins with.
    pub s_first_data_block: u32,
    /// log2 of the block size, less 10.
    pub s_log_block_size: u32,
    /// log2 of the cluster size, less 10.
    pub s_log_cluster_size: u32,
    /// Blocks of a group.
    pub s_blocks_per_group: u32,
    /// Clusters of a group.
    pub s_clusters_per_group: u32,
    /// Inodes of a group.
    pub s_inodes_per_group: u32,
    /// When it was last mounted.
    pub s_mtime: u32,
    /// When it was last written to.
    pub s_wtime: u32,
    /// [`MAGIC`]
    pub s_magic: u16,
    /// [`STATE_VALID`], [`STATE_ERROR`]
    pub s_state: u16,
    /// When it was last checked.
    pub s_lastcheck: u32,
    /// 0: Linux
    pub s_creator_os: u32,
    /// 0: no features, inodes of 128 bytes.
    pub s_rev_level: u32,
    /// The first inode that is not the file system's own.
    pub s_first_ino: u32,
    /// Bytes of an inode.
    pub s_inode_size: u16,
    /// The group of this copy.
    pub s_block_group_nr: u16,
    /// See [`compat`].
    pub s_feature_compat: u32,
    /// See [`incompat`].
    pub s_feature_incompat: u32,
    /// See [`ro_compat`].
    pub s_feature_ro_compat: u32,
    /// The file system's UUID.
    pub s_uuid: [u8; 16],
    /// The label, NUL at its end.
    pub s_volume_name: [u8; 16],
    /// Blocks that a directory may have behind its size.
    pub s_prealloc_dir_blocks: u8,
    /// Blocks kept for descriptors to come.
    pub s_reserved_gdt_blocks: u16,
    /// UUID of the journal's device.
    pub s_journal_uuid: [u8; 16],
    /// Inode of the journal.
    pub s_journal_inum: u32,
    /// Number of the journal's device.
    pub s_journal_dev: u32,
    /// First of the list of deleted inodes.
    pub s_last_orphan: u32,
    /// Seed of directories' hashes: four little-endian words.
    pub s_hash_seed: [u8; 16],
    /// How new directories are hashed.
    pub s_def_hash_version: u8,
    /// 1: `s_jnl_blocks` is a copy.
    pub s_jnl_backup_type: u8,
    /// Bytes of a group descriptor.
    pub s_desc_size: u16,
    /// The field of that, which means nothing without `64bit`.
    pub s_desc_size_told: u16,
    /// Mount options.
    pub s_default_mount_opts: u32,
    /// First group of blocks of descriptors with `meta_bg`.
    pub s_first_meta_bg: u32,
    /// When it was made.
    pub s_mkfs_time: u32,
    /// Copy of the journal's `i_block`, `i_size_high` and `i_size`.
    pub s_jnl_blocks: [u8; 68],
    /// Least `i_extra_isize`.
    pub s_min_extra_isize: u16,
    /// `i_extra_isize` of new inodes.
    pub s_want_extra_isize: u16,
    /// [`FLAG_SIGNED_HASH`], [`FLAG_UNSIGNED_HASH`]
    pub s_flags: u32,
    /// Block of multiple mount protection.
    pub s_mmp_block: u64,
    /// log2 of groups whose metadata lie together.
    pub s_log_groups_per_flex: u8,
    /// 1: crc32c
    pub s_checksum_type: u8,
    /// Errors that the kernel met.
    pub s_error_count: u32,
    /// Clusters of metadata, or 0.
    pub s_overhead_clusters: u32,
    /// Inode of users' quota.
    pub s_usr_quota_inum: u32,
    /// Inode of groups' quota.
    pub s_grp_quota_inum: u32,
    /// Inode of projects' quota.
    pub s_prj_quota_inum: u32,
    /// Groups with backups, with `sparse_super2`.
    pub s_backup_bgs: [u32; 2],
    /// Algorithms of encryption.
    pub s_encrypt_algos: [u8; 4],
    /// Inode of lost+found, or 0.
    pub s_lpf_ino: u32,
    /// Seed of checksums with `metadata_csum_seed`.
    pub s_checksum_seed: u32,
    /// Encoding of names with `casefold`.
    pub s_encoding: u16,
    /// Flags of that.
    pub s_encoding_flags: u16,
    /// Inode of the orphan file.
    pub s_orphan_file_inum: u32,
    /// Over all before it.
    pub s_checksum: u32,
}

impl Superblock {
    /// Takes the fields as they are: whether they make sense is
    /// [`super::geometry`]'s business.
    #[must_use]
    pub fn decode(raw: &[u8; SUPERBLOCK_SIZE]) -> Self {
        let s_rev_level = u32_at(raw, 0x4c);
        let s_feature_incompat = u32_at(raw, 0x60);
        // The high halves are other fields' places without the feature.
        let wide = s_feature_incompat & incompat::SIXTY_FOUR_BIT != 0;
        let high = |at: usize| if wide { u32_at(raw, at) } else { 0 };
        let bytes16 = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&raw[at..at + 16]);
            bytes
        };
        let mut jnl_blocks = [0; 68];
        jnl_blocks.copy_from_slice(&raw[0x10c..0x10c + 68]);
        Self {
            s_inodes_count: u32_at(raw, 0x00),
            blocks_count: hilo(high(0x150), u32_at(raw, 0x04)),
            reserved_blocks_count: hilo(high(0x154), u32_at(raw, 0x08)),
            free_blocks_count: hilo(high(0x158), u32_at(raw, 0x0c)),
            s_free_inodes_count: u32_at(raw, 0x10),
            s_first_data_block: u32_at(raw, 0x14),
            s_log_block_size: u32_at(raw, 0x18),
            s_log_cluster_size: u32_at(raw, 0x1c),
            s_blocks_per_group: u32_at(raw, 0x20),
            s_clusters_per_group: u32_at(raw, 0x24),
            s_inodes_per_group: u32_at(raw, 0x28),
            s_mtime: u32_at(raw, 0x2c),
            s_wtime: u32_at(raw, 0x30),
            s_magic: u16_at(raw, 0x38),
            s_state: u16_at(raw, 0x3a),
            s_lastcheck: u32_at(raw, 0x40),
            s_creator_os: u32_at(raw, 0x48),
            s_rev_level,
            s_first_ino: if s_rev_level == GOOD_OLD_REV {
                11
            } else {
                u32_at(raw, 0x54)
            },
            s_inode_size: if s_rev_level == GOOD_OLD_REV {
                128
            } else {
                u16_at(raw, 0x58)
            },
            s_block_group_nr: u16_at(raw, 0x5a),
            s_feature_compat: u32_at(raw, 0x5c),
            s_feature_incompat,
            s_feature_ro_compat: u32_at(raw, 0x64),
            s_uuid: bytes16(0x68),
            s_volume_name: bytes16(0x78),
            s_prealloc_dir_blocks: raw[0xcd],
            s_reserved_gdt_blocks: u16_at(raw, 0xce),
            s_journal_uuid: bytes16(0xd0),
            s_journal_inum: u32_at(raw, 0xe0),
            s_journal_dev: u32_at(raw, 0xe4),
            s_last_orphan: u32_at(raw, 0xe8),
            s_hash_seed: bytes16(0xec),
            s_def_hash_version: raw[0xfc],
            s_jnl_backup_type: raw[0xfd],
            s_desc_size: if wide { u16_at(raw, 0xfe) } else { 32 },
            s_desc_size_told: u16_at(raw, 0xfe),
            s_default_mount_opts: u32_at(raw, 0x100),
            s_first_meta_bg: u32_at(raw, 0x104),
            s_mkfs_time: u32_at(raw, 0x108),
            s_jnl_blocks: jnl_blocks,
            s_min_extra_isize: u16_at(raw, 0x15c),
            s_want_extra_isize: u16_at(raw, 0x15e),
            s_flags: u32_at(raw, 0x160),
            s_mmp_block: u64_at(raw, 0x168),
            s_log_groups_per_flex: raw[0x174],
            s_checksum_type: raw[0x175],
            s_error_count: u32_at(raw, 0x194),
            s_overhead_clusters: u32_at(raw, 0x248),
            s_usr_quota_inum: u32_at(raw, 0x240),
            s_grp_quota_inum: u32_at(raw, 0x244),
            s_prj_quota_inum: u32_at(raw, 0x26c),
            s_backup_bgs: [u32_at(raw, 0x24c), u32_at(raw, 0x250)],
            s_encrypt_algos: [raw[0x254], raw[0x255], raw[0x256], raw[0x257]],
            s_lpf_ino: u32_at(raw, 0x268),
            s_checksum_seed: u32_at(raw, 0x270),
            s_encoding: u16_at(raw, 0x27c),
            s_encoding_flags: u16_at(raw, 0x27e),
            s_orphan_file_inum: u32_at(raw, 0x280),
            s_checksum: u32_at(raw, CHECKSUM_AT),
        }
    }

    /// Has it this feature?
    #[must_use]
    pub const fn has_compat(&self, bit: u32) -> bool {
        self.s_feature_compat & bit != 0
    }

    /// Has it this feature?
    #[must_use]
    pub const fn has_incompat(&self, bit: u32) -> bool {
        self.s_feature_incompat & bit != 0
    }

    /// Has it this feature?
    #[must_use]
    pub const fn has_ro_compat(&self, bit: u32) -> bool {
        self.s_feature_ro_compat & bit != 0
    }

    /// In bytes; `None` above 64 KiB (`EXT4_MAX_BLOCK_LOG_SIZE`).
    #[must_use]
    pub fn block_size(&self) -> Option<u32> {
        (self.s_log_block_size <= 6).then(|| 1024 << self.s_log_block_size)
    }

    /// Whether metadata has CRC32C checksums.
    #[must_use]
    pub const fn has_checksums(&self) -> bool {
        self.has_ro_compat(ro_compat::METADATA_CSUM)
    }

    /// What all checksums but the superblock's start from.
    #[must_use]
    pub fn checksum_seed(&self) -> u32 {
        if self.has_incompat(incompat::CSUM_SEED) {
            self.s_checksum_seed
        } else {
            crc32c(!0, &self.s_uuid)
        }
    }

    /// Where the journal is, by what the superblock says.
    #[must_use]
    pub fn journal(&self) -> Journal {
        if !self.has_compat(compat::HAS_JOURNAL) {
            Journal::None
        } else if self.s_journal_inum != 0 {
            Journal::Internal(self.s_journal_inum)
        } else {
            Journal::External(self.s_journal_uuid)
        }
    }

    /// The state in the words of `dumpe2fs`.
    #[must_use]
    pub fn state_text(&self) -> String {
        let mut text = String::from(if self.s_state & STATE_VALID == 0 {
            "not clean"
        } else {
            "clean"
        });
        if self.has_incompat(incompat::RECOVER) {
            text.push_str(", needs recovery");
        }
        if self.s_state & STATE_ERROR != 0 {
            text.push_str(", with errors");
        }
        text
    }

    /// The superblock's checksum, as the bytes give it.
    #[must_use]
    pub fn computed_checksum(raw: &[u8; SUPERBLOCK_SIZE]) -> u32 {
        crc32c(!0, &raw[..CHECKSUM_AT])
    }
}
