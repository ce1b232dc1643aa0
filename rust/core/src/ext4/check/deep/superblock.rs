//! What the superficial check leaves of the superblock (`check_super_block`).

use super::Deep;
use crate::ext4::read::features::{self, compat, incompat, ro_compat};

/// `EXT4_GOOD_OLD_FIRST_INO`
const FIRST_INODE: u32 = 11;
/// `EXT4_MAX_SUPP_REV`
const LAST_REVISION: u32 = 1;

impl Deep<'_> {
    pub(super) fn superblock(&mut self) {
        let sb = self.sb;
        let unchecked = features::unchecked(sb);
        if !unchecked.is_empty() {
            self.report.problem(
                "unknown-feature",
                format!(
                    "the file system has features under which e2fsck checks nothing: {}",
                    unchecked.join(", ")
                ),
            );
        }
        let mut bad = |text: String| self.report.problem("superblock", text);
        if sb.reserved_blocks_count > sb.blocks_count / 2 {
            bad(format!(
                "{} of {} blocks are reserved for root; half of them is the most",
                sb.reserved_blocks_count, sb.blocks_count
            ));
        }
        if sb.s_first_ino < FIRST_INODE || sb.s_first_ino > sb.s_inodes_count {
            bad(format!(
                "s_first_ino is {}, of {} inodes",
                sb.s_first_ino, sb.s_inodes_count
            ));
        }
        let room = sb.s_inode_size.saturating_sub(128);
        for (name, size) in [
            ("s_min_extra_isize", sb.s_min_extra_isize),
            ("s_want_extra_isize", sb.s_want_extra_isize),
        ] {
            if room > 0 && size != 0 && (size < 4 || size > room || !size.is_multiple_of(4)) {
                bad(format!(
                    "{name} is {size}; 4 to {room}, by fours, is possible"
                ));
            }
        }
        if sb.s_rev_level > LAST_REVISION {
            bad(format!("s_rev_level is {}", sb.s_rev_level));
        }
        let sums = sb.has_checksums();
        for (wrong, text) in [
            (
                sums && sb.has_ro_compat(ro_compat::GDT_CSUM),
                "metadata_csum and uninit_bg exclude each other",
            ),
            (
                !sums && sb.has_incompat(incompat::CSUM_SEED),
                "metadata_csum_seed needs metadata_csum",
            ),
            (
                sb.has_incompat(incompat::SIXTY_FOUR_BIT) && !sb.has_incompat(incompat::EXTENTS),
                "64bit needs extent",
            ),
            (
                sb.has_compat(compat::ORPHAN_FILE) && !sb.has_compat(compat::HAS_JOURNAL),
                "orphan_file needs has_journal",
            ),
        ] {
            if wrong {
                bad(format!("the features {text}"));
            }
        }
        // Without 64bit the kernel does not look at it, but e2fsck does.
        let told = usize::from(sb.s_desc_size_told);
        if told != 0 && (!told.is_power_of_two() || told > 1024) {
            bad(format!("s_desc_size is {told}; a power of two is expected"));
        }
        if sb.s_last_orphan != 0 && !sb.has_incompat(incompat::RECOVER) {
            bad(format!(
                "inode {} begins a list of deleted or cut files that are still to be dealt with",
                sb.s_last_orphan
            ));
        }
    }
}
