//! Whether the layout is one that is known.

use super::report::ImageReport;
use crate::ext4::read::features::{incompat, unknown};
use crate::ext4::read::superblock::Superblock;

/// Whether the layout is one that is known.
pub(super) fn verify(sb: &Superblock, report: &mut ImageReport) -> bool {
    if sb.has_incompat(incompat::JOURNAL_DEV) {
        report.problem(
            "journal-device",
            "this is an external journal, not a file system".into(),
        );
        return false;
    }
    let (unmountable, unwritable) = unknown(sb);
    let mut known = true;
    for (names, verb) in [(unmountable, "mount"), (unwritable, "write to")] {
        if !names.is_empty() {
            known = false;
            report.problem(
                "unknown-feature",
                format!(
                    "the file system has features that the kernel's ext4 does not {verb}: {}",
                    names.join(", ")
                ),
            );
        }
    }
    known
}
