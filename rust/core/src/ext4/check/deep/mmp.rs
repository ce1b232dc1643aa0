//! The block of multiple mount protection (`e2fsck_check_mmp`).

use super::Deep;
use crate::error::Result;
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::checksum::crc32c;
use crate::ext4::read::features::incompat;

/// `EXT4_MMP_MAGIC`
const MAGIC: u32 = 0x004d_4d50;
/// Unmounted, e2fsck at work, the last number of a mounted one
/// (`EXT4_MMP_SEQ_*`).
const CLEAN: u32 = 0xff4d_4d50;
const FSCK: u32 = 0xe24d_4d50;
const LAST: u32 = 0xe24d_4d4f;
/// Where `mmp_checksum` is in `struct mmp_struct`, which it ends.
const CHECKSUM_AT: usize = 0x3fc;

impl Deep<'_> {
    pub(super) fn multiple_mounts(&mut self) -> Result<()> {
        if !self.sb.has_incompat(incompat::MMP) {
            return Ok(());
        }
        let block = self.sb.s_mmp_block;
        if block <= u64::from(self.geometry.first_data_block) || block >= self.geometry.blocks {
            self.problem(
                "mmp",
                format!("the block of multiple mount protection, {block}, is none that can be"),
            );
            return Ok(());
        }
        let mut raw = [0; CHECKSUM_AT + 4];
        if !self.read_block(block, &mut raw)? {
            return Ok(());
        }
        let (magic, sequence, stored) =
            (u32_at(&raw, 0), u32_at(&raw, 4), u32_at(&raw, CHECKSUM_AT));
        let computed = crc32c(self.seed, &raw[..CHECKSUM_AT]);
        let fault = if magic != MAGIC {
            format!("has the magic number 0x{magic:08x}, not 0x{MAGIC:08x}")
        } else if self.sb.has_checksums() && stored != computed {
            format!("has the checksum 0x{stored:08x}, its bytes give 0x{computed:08x}")
        } else if sequence == FSCK {
            "says that e2fsck is at work".to_owned()
        } else if sequence > LAST && sequence != CLEAN {
            format!("has the sequence number 0x{sequence:08x}, which means nothing")
        } else {
            return Ok(());
        };
        self.problem(
            "mmp",
            format!("block {block}, of multiple mount protection, {fault}"),
        );
        Ok(())
    }
}
