//! The superblock (`struct ext4_super_block`), read.

use super::checksum::crc32c;
use super::features::{compat, incompat, ro_compat};
use super::read::{hilo, u16_at, u32_at};
use super::report::{ImageReport, Journal};

/// Where the superblock begins, whatever the block size.
pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
/// Its size in bytes.
pub(super) const SUPERBLOCK_SIZE: usize = 1024;
/// `EXT4_SUPER_MAGIC`
pub(super) const MAGIC: u16 = 0xef53;
/// Where the magic number is in the superblock.
pub(super) const MAGIC_AT: u64 = 0x38;
/// Where `s_checksum` is in the superblock: it covers all before it.
const CHECKSUM_AT: usize = 0x3fc;

/// `EXT4_VALID_FS`: unmounted cleanly.
const STATE_VALID: u16 = 0x1;
/// `EXT4_ERROR_FS`: the kernel met an error.
const STATE_ERROR: u16 = 0x2;
/// `EXT4_GOOD_OLD_REV`: inode size and features are not told but fixed.
const GOOD_OLD_REV: u32 = 0;
/// `EXT4_CRC32C_CHKSUM`, the only `s_checksum_type`.
const CHECKSUM_CRC32C: u8 = 1;

/// The fields that matter here, by the kernel's names; pairs of halves are
/// joined and bear no `s_`.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) s_inodes_count: u32,
    pub(super) blocks_count: u64,
    pub(super) free_blocks_count: u64,
    pub(super) s_free_inodes_count: u32,
    pub(super) s_first_data_block: u32,
    pub(super) s_log_block_size: u32,
    pub(super) s_log_cluster_size: u32,
    pub(super) s_blocks_per_group: u32,
    pub(super) s_clusters_per_group: u32,
    pub(super) s_inodes_per_group: u32,
    pub(super) s_magic: u16,
    pub(super) s_state: u16,
    pub(super) s_inode_size: u16,
    pub(super) s_feature_compat: u32,
    pub(super) s_feature_incompat: u32,
    pub(super) s_feature_ro_compat: u32,
    pub(super) s_uuid: [u8; 16],
    pub(super) s_volume_name: [u8; 16],
    pub(super) s_journal_uuid: [u8; 16],
    pub(super) s_journal_inum: u32,
    pub(super) s_reserved_gdt_blocks: u16,
    pub(super) s_desc_size: u16,
    pub(super) s_first_meta_bg: u32,
    pub(super) s_checksum_type: u8,
    pub(super) s_error_count: u32,
    pub(super) s_backup_bgs: [u32; 2],
    pub(super) s_checksum_seed: u32,
    pub(super) s_checksum: u32,
}

impl Superblock {
    pub(super) fn decode(raw: &[u8; SUPERBLOCK_SIZE]) -> Self {
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
        Self {
            s_inodes_count: u32_at(raw, 0x00),
            blocks_count: hilo(high(0x150), u32_at(raw, 0x04)),
            free_blocks_count: hilo(high(0x158), u32_at(raw, 0x0c)),
            s_free_inodes_count: u32_at(raw, 0x10),
            s_first_data_block: u32_at(raw, 0x14),
            s_log_block_size: u32_at(raw, 0x18),
            s_log_cluster_size: u32_at(raw, 0x1c),
            s_blocks_per_group: u32_at(raw, 0x20),
            s_clusters_per_group: u32_at(raw, 0x24),
            s_inodes_per_group: u32_at(raw, 0x28),
            s_magic: u16_at(raw, 0x38),
            s_state: u16_at(raw, 0x3a),
            s_inode_size: if s_rev_level == GOOD_OLD_REV {
                128
            } else {
                u16_at(raw, 0x58)
            },
            s_feature_compat: u32_at(raw, 0x5c),
            s_feature_incompat,
            s_feature_ro_compat: u32_at(raw, 0x64),
            s_uuid: bytes16(0x68),
            s_volume_name: bytes16(0x78),
            s_reserved_gdt_blocks: u16_at(raw, 0xce),
            s_journal_uuid: bytes16(0xd0),
            s_journal_inum: u32_at(raw, 0xe0),
            s_desc_size: if wide { u16_at(raw, 0xfe) } else { 32 },
            s_first_meta_bg: u32_at(raw, 0x104),
            s_checksum_type: raw[0x175],
            s_error_count: u32_at(raw, 0x194),
            s_backup_bgs: [u32_at(raw, 0x24c), u32_at(raw, 0x250)],
            s_checksum_seed: u32_at(raw, 0x270),
            s_checksum: u32_at(raw, CHECKSUM_AT),
        }
    }

    pub(super) const fn has_compat(&self, bit: u32) -> bool {
        self.s_feature_compat & bit != 0
    }

    pub(super) const fn has_incompat(&self, bit: u32) -> bool {
        self.s_feature_incompat & bit != 0
    }

    pub(super) const fn has_ro_compat(&self, bit: u32) -> bool {
        self.s_feature_ro_compat & bit != 0
    }

    /// In bytes; `None` above 64 KiB (`EXT4_MAX_BLOCK_LOG_SIZE`).
    pub(super) fn block_size(&self) -> Option<u32> {
        (self.s_log_block_size <= 6).then(|| 1024 << self.s_log_block_size)
    }

    /// Whether metadata has CRC32C checksums.
    pub(super) const fn has_checksums(&self) -> bool {
        self.has_ro_compat(ro_compat::METADATA_CSUM)
    }

    /// What all checksums but the superblock's start from.
    pub(super) fn checksum_seed(&self) -> u32 {
        if self.has_incompat(incompat::CSUM_SEED) {
            self.s_checksum_seed
        } else {
            crc32c(!0, &self.s_uuid)
        }
    }

    pub(super) fn journal(&self) -> Journal {
        if !self.has_compat(compat::HAS_JOURNAL) {
            Journal::None
        } else if self.s_journal_inum != 0 {
            Journal::Internal(self.s_journal_inum)
        } else {
            Journal::External(self.s_journal_uuid)
        }
    }

    pub(super) fn state_text(&self) -> String {
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

    pub(super) fn verify_checksum(&self, raw: &[u8; SUPERBLOCK_SIZE], report: &mut ImageReport) {
        if !self.has_checksums() {
            return;
        }
        if self.s_checksum_type != CHECKSUM_CRC32C {
            report.problem(
                "checksum-type",
                format!(
                    "the superblock names checksum type {}; only 1 (crc32c) exists",
                    self.s_checksum_type
                ),
            );
        }
        let computed = crc32c(!0, &raw[..CHECKSUM_AT]);
        if computed != self.s_checksum {
            report.problem(
                "superblock-checksum",
                format!(
                    "the superblock's checksum is 0x{:08x}, its bytes give 0x{computed:08x}",
                    self.s_checksum
                ),
            );
        }
    }

    pub(super) fn verify_state(&self, report: &mut ImageReport) {
        if self.has_incompat(incompat::RECOVER) {
            report.problem(
                "needs-recovery",
                "the file system is mounted, or was not unmounted: its journal is still to be replayed".into(),
            );
        }
        if self.s_state & STATE_VALID == 0 {
            report.problem(
                "not-clean",
                "the file system was not unmounted cleanly".into(),
            );
        }
        if self.s_state & STATE_ERROR != 0 || self.s_error_count != 0 {
            report.problem(
                "errors",
                format!(
                    "the kernel met errors in the file system ({} recorded)",
                    self.s_error_count
                ),
            );
        }
        if self.has_compat(compat::HAS_JOURNAL)
            && self.s_journal_inum == 0
            && self.s_journal_uuid == [0; 16]
        {
            report.problem(
                "no-journal",
                "the superblock says that there is a journal, but neither an inode nor a device for it".into(),
            );
        }
    }
}
