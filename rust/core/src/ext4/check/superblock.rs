//! The superblock's checksum and state.

use super::report::ImageReport;
use crate::ext4::read::features::{compat, incompat};
use crate::ext4::read::superblock::{
    Superblock, CHECKSUM_CRC32C, STATE_ERROR, STATE_VALID, SUPERBLOCK_SIZE,
};

/// `EXT4_ENC_UTF8_12_1`
const ENCODING_UTF8: u16 = 1;

pub(super) fn verify_checksum(
    sb: &Superblock,
    raw: &[u8; SUPERBLOCK_SIZE],
    report: &mut ImageReport,
) {
    if !sb.has_checksums() {
        return;
    }
    if sb.s_checksum_type != CHECKSUM_CRC32C {
        report.problem(
            "checksum-type",
            format!(
                "the superblock names checksum type {}; only 1 (crc32c) exists",
                sb.s_checksum_type
            ),
        );
    }
    let computed = Superblock::computed_checksum(raw);
    if computed != sb.s_checksum {
        report.problem(
            "superblock-checksum",
            format!(
                "the superblock's checksum is 0x{:08x}, its bytes give 0x{computed:08x}",
                sb.s_checksum
            ),
        );
    }
}

pub(super) fn verify_state(sb: &Superblock, report: &mut ImageReport) {
    if sb.has_incompat(incompat::RECOVER) {
        report.problem(
            "needs-recovery",
            "the file system is mounted, or was not unmounted: its journal is still to be replayed"
                .into(),
        );
    }
    if sb.has_incompat(incompat::CASEFOLD) && sb.s_encoding != ENCODING_UTF8 {
        report.problem(
            "superblock",
            format!(
                "s_encoding is {}; only 1 (UTF-8 12.1) exists, and with casefold one is needed",
                sb.s_encoding
            ),
        );
    }
    if sb.s_state & STATE_VALID == 0 {
        report.problem(
            "not-clean",
            "the file system was not unmounted cleanly".into(),
        );
    }
    if sb.s_state & STATE_ERROR != 0 || sb.s_error_count != 0 {
        report.problem(
            "errors",
            format!(
                "the kernel met errors in the file system ({} recorded)",
                sb.s_error_count
            ),
        );
    }
    if sb.has_compat(compat::HAS_JOURNAL) && sb.s_journal_inum == 0 && sb.s_journal_uuid == [0; 16]
    {
        report.problem(
            "no-journal",
            "the superblock says that there is a journal, but neither an inode nor a device for it"
                .into(),
        );
    }
}
