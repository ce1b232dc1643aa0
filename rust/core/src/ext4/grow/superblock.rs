//! The superblock as bytes: what growing does not concern stays as it is.

use super::fault::{unclean, unsound, unsupported};
use crate::error::Result;
use crate::ext4::format::checksum::Checksum;
use crate::ext4::format::superblock::{MAGIC, SUPERBLOCK_SIZE};
use crate::ext4::format::{high32, low32, put_u16, put_u32};
use std::path::Path;

pub(super) use crate::ext4::read::features::{compat, incompat, ro_compat};

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
    raw: Vec<u8>,
}

impl Superblock {
    /// The one in `raw`, when it is of a file system that can be grown and that
    /// nothing has to be done to before.
    pub(super) fn admit(raw: Vec<u8>, path: &Path) -> Result<Self> {
        let sb = Self { raw };
        if sb.raw.len() != SUPERBLOCK_SIZE || sb.u16(0x38) != MAGIC {
            return Err(unsound(path, "it is no ext2, ext3 or ext4".into()));
        }
        if sb.u32(0x4c) == 0 {
            return Err(unsupported(
                path,
                "it is an ext2 of revision 0, without features",
            ));
        }
        if sb.has_checksums() && sb.u32(0x3fc) != sb.checksum() {
            return Err(unsound(path, "the superblock's checksum is wrong".into()));
        }
        let (compat, incompat, ro_compat) = (sb.u32(0x5c), sb.u32(0x60), sb.u32(0x64));
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
        if sb.u16(0x3a) & 1 == 0 {
            return Err(unclean(path, "it was not unmounted cleanly"));
        }
        if sb.u16(0x3a) & 2 != 0 || sb.u32(0x194) != 0 {
            return Err(unclean(path, "the kernel met errors in it"));
        }
        if sb.u32(0xe8) != 0 || ro_compat & ro_compat::ORPHAN_PRESENT != 0 {
            return Err(unclean(
                path,
                "it has orphans: files deleted while they were in use",
            ));
        }
        Ok(sb)
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.raw[at], self.raw[at + 1]])
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    pub(super) fn put_u16(&mut self, at: usize, value: u16) {
        put_u16(&mut self.raw, at, value);
    }

    pub(super) fn put_u32(&mut self, at: usize, value: u32) {
        put_u32(&mut self.raw, at, value);
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.raw[at]
    }

    pub(super) fn has_compat(&self, bit: u32) -> bool {
        self.u32(0x5c) & bit != 0
    }

    pub(super) fn has_incompat(&self, bit: u32) -> bool {
        self.u32(0x60) & bit != 0
    }

    pub(super) fn has_ro_compat(&self, bit: u32) -> bool {
        self.u32(0x64) & bit != 0
    }

    pub(super) fn set(&mut self, word: usize, bit: u32, on: bool) {
        let old = self.u32(word);
        self.put_u32(word, if on { old | bit } else { old & !bit });
    }

    /// Whether all metadata has CRC32C checksums.
    pub(super) fn has_checksums(&self) -> bool {
        self.has_ro_compat(ro_compat::METADATA_CSUM)
    }

    /// Whether descriptors have a checksum and tell what was never initialised.
    pub(super) fn has_group_checksums(&self) -> bool {
        self.has_ro_compat(ro_compat::METADATA_CSUM | ro_compat::GDT_CSUM)
    }

    fn checksum(&self) -> u32 {
        Checksum::new().bytes(&self.raw[..0x3fc]).value()
    }

    /// What all checksums but this block's start from.
    pub(super) fn seed(&self) -> Checksum {
        if !self.has_checksums() {
            Checksum::off()
        } else if self.has_incompat(incompat::CSUM_SEED) {
            Checksum::resumed(self.u32(0x270))
        } else {
            Checksum::new().bytes(self.uuid())
        }
    }

    pub(super) fn uuid(&self) -> &[u8] {
        &self.raw[0x68..0x78]
    }

    /// A count in two halves; without `64bit` there is but the low one.
    pub(super) fn wide(&self, low: usize, high: usize) -> u64 {
        let high = if self.has_incompat(incompat::SIXTY_FOUR_BIT) {
            self.u32(high)
        } else {
            0
        };
        u64::from(high) << 32 | u64::from(self.u32(low))
    }

    pub(super) fn put_wide(&mut self, low: usize, high: usize, value: u64) {
        self.put_u32(low, low32(value));
        if self.has_incompat(incompat::SIXTY_FOUR_BIT) {
            self.put_u32(high, high32(value));
        }
    }

    /// Its bytes, with the checksum.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        if self.has_checksums() {
            put_u32(&mut raw, 0x3fc, self.checksum());
        }
        raw
    }

    /// The copy for a group (`s_block_group_nr` has 16 bits).
    pub(super) fn copy_for(&self, group: u32) -> Vec<u8> {
        let mut copy = self.clone();
        copy.put_u16(0x5a, crate::ext4::format::low16(group));
        copy.bytes()
    }
}
