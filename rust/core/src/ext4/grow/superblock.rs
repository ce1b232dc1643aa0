//! The superblock as bytes: what growing does not concern stays as it is.

use super::fault::{unclean, unsound, unsupported};
use crate::error::Result;
use crate::ext4::format::{high32, low32, put_u16, put_u32};
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::features::{compat, incompat, ro_compat};
use crate::ext4::read::superblock::{
    Superblock as Fields, MAGIC, STATE_ERROR, STATE_VALID, SUPERBLOCK_SIZE,
};
use std::path::Path;

/// has_journal ext_attr resize_inode dir_index, dir_prealloc, imagic_inodes, lazy_bg,
/// fast_commit, stable_inodes, orphan_file.
const KNOWN_COMPAT: u32 = 0x3f | 0x40 | 0x400 | 0x800 | 0x1000;
/// filetype needs_recovery meta_bg extent 64bit flex_bg ea_inode metadata_csum_seed
/// large_dir inline_data encrypt casefold.
const KNOWN_INCOMPAT: u32 =
    0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
/// sparse_super large_file btree_dir huge_file uninit_bg dir_nlink extra_isize quota
/// metadata_csum project verity orphan_present.
const KNOWN_RO_COMPAT: u32 =
    0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x400 | 0x2000 | 0x8000 | 0x1_0000;

/// A superblock.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    raw: [u8; SUPERBLOCK_SIZE],
}

impl Superblock {
    /// The one in `raw`, when it is of a file system that can be grown and that
    /// nothing has to be done to before.
    pub(super) fn admit(raw: [u8; SUPERBLOCK_SIZE], path: &Path) -> Result<Self> {
        let sb = Fields::decode(&raw);
        if sb.s_magic != MAGIC {
            return Err(unsound(path, "it is no ext2, ext3 or ext4".into()));
        }
        if sb.s_rev_level == 0 {
            return Err(unsupported(
                path,
                "it is an ext2 of revision 0, without features",
            ));
        }
        if sb.has_checksums() && sb.s_checksum != Fields::computed_checksum(&raw) {
            return Err(unsound(path, "the superblock's checksum is wrong".into()));
        }
        let (compat, incompat, ro_compat) = (
            sb.s_feature_compat,
            sb.s_feature_incompat,
            sb.s_feature_ro_compat,
        );
        let kinds = [
            (
                incompat & incompat::MMP,
                "multiple mount protection (mmp) may guard a file system in use",
            ),
            (
                ro_compat & ro_compat::BIGALLOC,
                "its blocks are given out in clusters (bigalloc)",
            ),
            (
                compat & compat::SPARSE_SUPER2,
                "its last backup would have to be moved (sparse_super2)",
            ),
        ];
        if let Some((_, why)) = kinds.into_iter().find(|&(bits, _)| bits != 0) {
            return Err(unsupported(path, why));
        }
        for (word, found, known) in [
            ("compat", compat, KNOWN_COMPAT),
            ("incompat", incompat, KNOWN_INCOMPAT),
            ("ro_compat", ro_compat, KNOWN_RO_COMPAT),
        ] {
            if found & !known != 0 {
                let bits = found & !known;
                return Err(unsupported(
                    path,
                    &format!("it has {word} features that are not known here: 0x{bits:x}"),
                ));
            }
        }
        if incompat & incompat::RECOVER != 0 {
            return Err(unclean(
                path,
                "it is mounted, or was not unmounted: its journal is still to be replayed",
            ));
        }
        if sb.s_state & STATE_VALID == 0 {
            return Err(unclean(path, "it was not unmounted cleanly"));
        }
        if sb.s_state & STATE_ERROR != 0 || sb.s_error_count != 0 {
            return Err(unclean(path, "the kernel met errors in it"));
        }
        if sb.s_last_orphan != 0 || ro_compat & ro_compat::ORPHAN_PRESENT != 0 {
            return Err(unclean(
                path,
                "it has orphans: files deleted while they were in use",
            ));
        }
        Ok(Self { raw })
    }

    /// What it says.
    pub(super) fn fields(&self) -> Fields {
        Fields::decode(&self.raw)
    }

    pub(super) fn put_u16(&mut self, at: usize, value: u16) {
        put_u16(&mut self.raw, at, value);
    }

    pub(super) fn put_u32(&mut self, at: usize, value: u32) {
        put_u32(&mut self.raw, at, value);
    }

    pub(super) fn set(&mut self, word: usize, bit: u32, on: bool) {
        let old = u32_at(&self.raw, word);
        self.put_u32(word, if on { old | bit } else { old & !bit });
    }

    /// A count in two halves; without `64bit` there is but the low one.
    pub(super) fn put_wide(&mut self, low: usize, high: usize, value: u64) {
        self.put_u32(low, low32(value));
        if self.fields().has_incompat(incompat::SIXTY_FOUR_BIT) {
            self.put_u32(high, high32(value));
        }
    }

    /// Its bytes, with the checksum.
    pub(super) fn bytes(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut raw = self.raw;
        if self.fields().has_checksums() {
            let sum = Fields::computed_checksum(&raw);
            put_u32(&mut raw, 0x3fc, sum);
        }
        raw
    }

    /// The copy for a group (`s_block_group_nr` has 16 bits).
    pub(super) fn copy_for(&self, group: u32) -> [u8; SUPERBLOCK_SIZE] {
        let mut copy = self.clone();
        copy.put_u16(0x5a, crate::ext4::format::low16(group));
        copy.bytes()
    }
}
