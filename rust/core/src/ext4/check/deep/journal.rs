//! The journal's superblock (`e2fsck_check_ext3_journal`). Its log is not read
//! here.

use super::Deep;
use crate::error::Result;
use crate::ext4::read::bytes::be32_at;
use crate::ext4::read::checksum::crc32c;
use crate::ext4::read::features::incompat;
use crate::ext4::read::inode::{flags, Inode};
use crate::ext4::read::runs;
use crate::ext4::read::superblock::Journal;
use crate::ext4::read::Fault;

/// `JBD2_MAGIC_NUMBER`
const MAGIC: u32 = 0xc03b_3998;
/// Bytes of `journal_superblock_t`.
const SIZE: usize = 1024;
/// Where its checksum is.
const CHECKSUM_AT: usize = 0xfc;
/// `JBD2_FEATURE_INCOMPAT_*` of checksums.
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
/// What is known of them: revoke, 64bit, async_commit, both checksums,
/// fast_commit.
const KNOWN: u32 = 0x3f;
/// `JBD2_MIN_JOURNAL_BLOCKS`
const LEAST_BLOCKS: u64 = 1024;

impl Deep<'_> {
    pub(super) fn journal(&mut self) -> Result<()> {
        let recover = self.sb.has_incompat(incompat::RECOVER);
        let number = match self.sb.journal() {
            Journal::None => {
                let named = self.sb.s_journal_inum != 0 || self.sb.s_journal_uuid != [0; 16];
                if named {
                    self.problem(
                        "journal",
                        "the superblock names a journal, without the feature has_journal".into(),
                    );
                }
                if recover {
                    self.problem(
                        "journal",
                        "the journal is to be replayed, but there is none".into(),
                    );
                }
                return Ok(());
            }
            Journal::External(_) => {
                self.problem(
                    "unsupported-feature",
                    "the journal is on another device, which is not looked at".into(),
                );
                return Ok(());
            }
            Journal::Internal(number) => number,
        };
        // e2fsck looks for a device with that UUID, the kernel for the device.
        if self.sb.s_journal_uuid != [0; 16] || self.sb.s_journal_dev != 0 {
            self.problem(
                "journal",
                format!("the superblock names a journal on another device beside inode {number}"),
            );
        }
        let inode = match self.fs.inode(number) {
            Ok(inode) => inode,
            Err(Fault::Host(error)) => return Err(error),
            Err(Fault::Nonsense(text)) => {
                self.problem("journal", text);
                return Ok(());
            }
        };
        if let Some(text) = self.journal_fault(number, &inode)? {
            self.problem("journal", format!("inode {number}: {text}"));
        }
        Ok(())
    }

    fn journal_fault(&mut self, number: u32, inode: &Inode) -> Result<Option<String>> {
        let block_size = u64::from(self.geometry.block_size);
        let (mut first, mut mapped) = (None, 0);
        let walked = runs::visit(self.fs, number, inode, &mut |run| {
            if run.logical == 0 {
                first = Some(run.physical);
            }
            if run.logical == mapped {
                mapped += run.len;
            }
            Ok(())
        });
        match walked {
            Ok(()) => {}
            Err(Fault::Host(error)) => return Err(error),
            Err(Fault::Nonsense(text)) => return Ok(Some(text)),
        }
        let Some(first) = first else {
            return Ok(Some("the journal has no first block".into()));
        };
        if inode.i_links_count == 0 {
            return Ok(Some("the journal's inode is not in use".into()));
        }
        let mut raw = [0; SIZE];
        if !self.read_block(first, &mut raw)? {
            return Ok(None);
        }
        let fast = be32_at(&raw, 0x54);
        let (kind, size, len) = (be32_at(&raw, 4), be32_at(&raw, 12), be32_at(&raw, 16));
        let incompatible = be32_at(&raw, 0x28);
        let blocks = inode.size / block_size;
        // To the byte: e2fsck takes a begun block for one that is missing. Of a journal in
        // a block map it has a copy in the superblock, where the size is right.
        let short = if inode.has(flags::EXTENTS) {
            inode.size > mapped * block_size
        } else {
            mapped < u64::from(len)
        };
        let fault = if be32_at(&raw, 0) != MAGIC || !matches!(kind, 3 | 4) {
            "the journal has no superblock".to_owned()
        } else if u64::from(size) != block_size {
            format!("the journal has blocks of {size} bytes")
        } else if u64::from(len) > blocks || short {
            format!(
                "the journal tells {len} blocks, its file has {} bytes and {mapped} mapped blocks",
                inode.size
            )
        } else if blocks < LEAST_BLOCKS {
            format!("the journal has {blocks} blocks; {LEAST_BLOCKS} are the least")
        } else if be32_at(&raw, 0x40) > 1 {
            format!(
                "the journal is said to be of {} file systems",
                be32_at(&raw, 0x40)
            )
        } else if kind == 4 && be32_at(&raw, 0x2c) != 0 {
            "the journal has a feature that forbids writing to it".to_owned()
        } else if kind == 4 && incompatible & !KNOWN != 0 {
            format!("the journal has features that are not known, 0x{incompatible:x}")
        } else if be32_at(&raw, 0x14) == 0 || be32_at(&raw, 0x14) >= len || fast >= len {
            format!(
                "the journal's log begins at block {} of {len}",
                be32_at(&raw, 0x14)
            )
        } else {
            return Ok(self.journal_sum(&raw, incompatible));
        };
        Ok(Some(fault))
    }

    fn journal_sum(&mut self, raw: &[u8; SIZE], incompatible: u32) -> Option<String> {
        if incompatible & (CSUM_V2 | CSUM_V3) != 0 {
            let register = crc32c(crc32c(!0, &raw[..CHECKSUM_AT]), &[0; 4]);
            let computed = crc32c(register, &raw[CHECKSUM_AT + 4..]);
            let stored = be32_at(raw, CHECKSUM_AT);
            if stored != computed {
                return Some(format!(
                    "the checksum of the journal's superblock is 0x{stored:08x}, its bytes give 0x{computed:08x}"
                ));
            }
        }
        if be32_at(raw, 0x1c) != 0 && !self.sb.has_incompat(incompat::RECOVER) {
            return Some(
                "the journal has something to be replayed, but the file system does not say so"
                    .into(),
            );
        }
        if be32_at(raw, 0x20) != 0 {
            return Some(format!(
                "the journal was given up with error {}",
                be32_at(raw, 0x20).cast_signed()
            ));
        }
        None
    }
}
