//! The feature words by name: all that `dumpe2fs` knows, not just those an
//! image of ours has.

use super::superblock::Superblock;

/// Bits of `s_feature_compat`.
#[allow(missing_docs, reason = "named as in dumpe2fs")]
pub mod compat {
    pub const HAS_JOURNAL: u32 = 0x0004;
    pub const EXT_ATTR: u32 = 0x0008;
    pub const RESIZE_INODE: u32 = 0x0010;
    pub const DIR_INDEX: u32 = 0x0020;
    pub const SPARSE_SUPER2: u32 = 0x0200;
    pub const FAST_COMMIT: u32 = 0x0400;
    pub const STABLE_INODES: u32 = 0x0800;
    pub const ORPHAN_FILE: u32 = 0x1000;
}

/// Bits of `s_feature_incompat`.
#[allow(missing_docs, reason = "named as in dumpe2fs")]
pub mod incompat {
    pub const FILETYPE: u32 = 0x0002;
    pub const RECOVER: u32 = 0x0004;
    pub const JOURNAL_DEV: u32 = 0x0008;
    pub const META_BG: u32 = 0x0010;
    pub const EXTENTS: u32 = 0x0040;
    pub const SIXTY_FOUR_BIT: u32 = 0x0080;
    pub const MMP: u32 = 0x0100;
    pub const FLEX_BG: u32 = 0x0200;
    pub const EA_INODE: u32 = 0x0400;
    pub const CSUM_SEED: u32 = 0x2000;
    pub const LARGE_DIR: u32 = 0x4000;
    pub const INLINE_DATA: u32 = 0x8000;
    pub const ENCRYPT: u32 = 0x1_0000;
    pub const CASEFOLD: u32 = 0x2_0000;
}

/// Bits of `s_feature_ro_compat`.
#[allow(missing_docs, reason = "named as in dumpe2fs")]
pub mod ro_compat {
    pub const SPARSE_SUPER: u32 = 0x0001;
    pub const LARGE_FILE: u32 = 0x0002;
    pub const HUGE_FILE: u32 = 0x0008;
    pub const GDT_CSUM: u32 = 0x0010;
    pub const DIR_NLINK: u32 = 0x0020;
    pub const EXTRA_ISIZE: u32 = 0x0040;
    pub const QUOTA: u32 = 0x0100;
    pub const BIGALLOC: u32 = 0x0200;
    pub const METADATA_CSUM: u32 = 0x0400;
    pub const PROJECT: u32 = 0x2000;
    pub const SHARED_BLOCKS: u32 = 0x4000;
    pub const VERITY: u32 = 0x8000;
    pub const ORPHAN_PRESENT: u32 = 0x1_0000;
}

/// Names by bit, as e2fsprogs has them (`lib/e2p/feature.c`).
const COMPAT: &[(u32, &str)] = &[
    (0x0001, "dir_prealloc"),
    (0x0002, "imagic_inodes"),
    (0x0004, "has_journal"),
    (0x0008, "ext_attr"),
    (0x0010, "resize_inode"),
    (0x0020, "dir_index"),
    (0x0040, "lazy_bg"),
    (0x0100, "snapshot_bitmap"),
    (0x0200, "sparse_super2"),
    (0x0400, "fast_commit"),
    (0x0800, "stable_inodes"),
    (0x1000, "orphan_file"),
];
const INCOMPAT: &[(u32, &str)] = &[
    (0x0001, "compression"),
    (0x0002, "filetype"),
    (0x0004, "needs_recovery"),
    (0x0008, "journal_dev"),
    (0x0010, "meta_bg"),
    (0x0040, "extent"),
    (0x0080, "64bit"),
    (0x0100, "mmp"),
    (0x0200, "flex_bg"),
    (0x0400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
const RO_COMPAT: &[(u32, &str)] = &[
    (0x0001, "sparse_super"),
    (0x0002, "large_file"),
    (0x0004, "btree_dir"),
    (0x0008, "huge_file"),
    (0x0010, "uninit_bg"),
    (0x0020, "dir_nlink"),
    (0x0040, "extra_isize"),
    (0x0080, "snapshot"),
    (0x0100, "quota"),
    (0x0200, "bigalloc"),
    (0x0400, "metadata_csum"),
    (0x0800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

/// What the kernel mounts (`EXT4_FEATURE_INCOMPAT_SUPP`).
const INCOMPAT_KNOWN: u32 = 0x3_e7d6;
/// What the kernel writes to (`EXT4_FEATURE_RO_COMPAT_SUPP`), and those under
/// which it only reads but which change nothing that is looked at here.
const RO_COMPAT_KNOWN: u32 = 0x1_f77f;
/// What e2fsck knows (`EXT2_LIB_FEATURE_COMPAT_SUPP`), and the kernel does not
/// look at.
const COMPAT_CHECKED: u32 = 0x1e3f;
/// What the kernel writes to, and e2fsck does not know.
const RO_COMPAT_UNCHECKED: u32 = 0x0004;

/// The names of all features, each word in the order of its bits.
#[must_use]
pub fn names(sb: &Superblock) -> Vec<String> {
    [
        (sb.s_feature_compat, COMPAT, 'C'),
        (sb.s_feature_incompat, INCOMPAT, 'I'),
        (sb.s_feature_ro_compat, RO_COMPAT, 'R'),
    ]
    .into_iter()
    .flat_map(|(word, table, letter)| word_names(word, table, letter))
    .collect()
}

/// The names of features that the kernel does not mount, and of those that it
/// does not write to.
#[must_use]
pub fn unknown(sb: &Superblock) -> (Vec<String>, Vec<String>) {
    (
        word_names(sb.s_feature_incompat & !INCOMPAT_KNOWN, INCOMPAT, 'I'),
        word_names(sb.s_feature_ro_compat & !RO_COMPAT_KNOWN, RO_COMPAT, 'R'),
    )
}

/// The names of features which the kernel does not mind and under which e2fsck
/// checks nothing.
#[must_use]
pub fn unchecked(sb: &Superblock) -> Vec<String> {
    let mut names = word_names(sb.s_feature_compat & !COMPAT_CHECKED, COMPAT, 'C');
    names.extend(word_names(
        sb.s_feature_ro_compat & RO_COMPAT_UNCHECKED,
        RO_COMPAT,
        'R',
    ));
    names
}

fn word_names(word: u32, table: &[(u32, &str)], letter: char) -> Vec<String> {
    (0..32)
        .filter(|bit| word & (1 << bit) != 0)
        .map(|bit| {
            table
                .iter()
                .find(|(known, _)| *known == 1 << bit)
                // As e2fsprogs names what it does not know.
                .map_or_else(
                    || format!("FEATURE_{letter}{bit}"),
                    |(_, name)| (*name).to_owned(),
                )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_order_and_the_masks_are_of_their_names() {
        for table in [COMPAT, INCOMPAT, RO_COMPAT] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        let refused: Vec<String> = word_names(!INCOMPAT_KNOWN & 0x3_ffff, INCOMPAT, 'I');
        assert_eq!(
            refused,
            [
                "compression",
                "journal_dev",
                "FEATURE_I5",
                "FEATURE_I11",
                "dirdata"
            ]
        );
        assert_eq!(
            word_names(!RO_COMPAT_KNOWN & 0x1_ffff, RO_COMPAT, 'R'),
            ["snapshot", "replica"]
        );
    }
}
