//! Deleted or cut files that something still had open, in the list that the
//! superblock begins and in the orphan file (`check_init_orphan_file`).

use std::collections::HashSet;

use super::Deep;
use crate::error::Result;
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::checksum::crc32c;
use crate::ext4::read::features::{compat, incompat, ro_compat};
use crate::ext4::read::inode::checksum_seed;
use crate::ext4::read::runs;
use crate::ext4::read::Fault;

/// `EXT4_ORPHAN_BLOCK_MAGIC`
const MAGIC: u32 = 0x0b10_ca04;
/// Bytes of `struct ext4_orphan_block_tail`.
const TAIL_SIZE: usize = 8;

impl Deep<'_> {
    /// The orphans of a file system that was not unmounted: they are in use
    /// until the next mount deals with them.
    pub(super) fn find_orphans(&mut self) -> Result<()> {
        if !self.sb.has_incompat(incompat::RECOVER) {
            return Ok(());
        }
        let (first, last) = (self.sb.s_first_ino, self.sb.s_inodes_count);
        let mut next = self.sb.s_last_orphan;
        // One that was met already ends the list.
        while (first..=last).contains(&next) && self.orphans.insert(next) {
            self.control.check()?;
            next = match self.fs.inode(next) {
                Ok(inode) => inode.i_dtime,
                Err(Fault::Host(error)) => return Err(error),
                Err(Fault::Nonsense(_)) => 0,
            };
        }
        if self.sb.has_compat(compat::ORPHAN_FILE) {
            let mut found = HashSet::new();
            self.orphan_blocks(&mut |_, raw, _| {
                let entries = raw[..raw.len() - TAIL_SIZE].chunks_exact(4);
                found.extend(
                    entries
                        .map(|raw| u32_at(raw, 0))
                        .filter(|entry| *entry != 0),
                );
            })?;
            found.retain(|number| (first..=last).contains(number));
            self.orphans.extend(found);
        }
        Ok(())
    }

    /// Looks at the orphan file itself.
    pub(super) fn orphan_file(&mut self) -> Result<()> {
        let sb = self.sb;
        if !sb.has_compat(compat::ORPHAN_FILE) {
            if sb.has_ro_compat(ro_compat::ORPHAN_PRESENT) {
                self.problem(
                    "orphan-file",
                    "the feature orphan_present is set, without orphan_file".into(),
                );
            }
            return Ok(());
        }
        let number = sb.s_orphan_file_inum;
        let inode = match self.fs.inode(number) {
            Ok(inode) => inode,
            Err(Fault::Host(error)) => return Err(error),
            Err(Fault::Nonsense(text)) => {
                self.problem("orphan-file", text);
                return Ok(());
            }
        };
        let block_size = u64::from(self.geometry.block_size);
        let seed = checksum_seed(number, inode.i_generation, self.seed);
        let (sums, crashed) = (sb.has_checksums(), sb.has_incompat(incompat::RECOVER));
        let mut faults = Vec::new();
        let mut next = 0;
        self.orphan_blocks(&mut |logical, raw, physical| {
            let tail = raw.len() - TAIL_SIZE;
            let register = crc32c(seed, &physical.to_le_bytes());
            let fault = if logical != next {
                "has a hole before it"
            } else if u32_at(raw, tail) != MAGIC {
                "does not end with the magic number"
            } else if sums && crc32c(register, &raw[..tail]) != u32_at(raw, tail + 4) {
                "has a wrong checksum"
            } else if !sums && !crashed && u32_at(raw, tail + 4) != 0 {
                "has a checksum, without metadata_csum"
            } else if !crashed && raw[..tail].iter().any(|byte| *byte != 0) {
                "names inodes, but the file system was unmounted"
            } else {
                ""
            };
            next = logical + 1;
            if !fault.is_empty() && faults.len() < 4 {
                faults.push(format!("its block {logical} {fault}"));
            }
        })?;
        if !inode.size.is_multiple_of(block_size) {
            faults.push(format!("it has {} bytes", inode.size));
        } else if next < inode.size / block_size {
            faults.push(format!("it has no block {next}"));
        }
        for fault in faults {
            self.problem(
                "orphan-file",
                format!("inode {number}: it is the orphan file, but {fault}"),
            );
        }
        Ok(())
    }

    /// Gives `visit` the blocks of the orphan file: the place in it, the bytes,
    /// and the place in the file system.
    fn orphan_blocks(&mut self, visit: &mut dyn FnMut(u64, &[u8], u64)) -> Result<()> {
        let number = self.sb.s_orphan_file_inum;
        let mut raw = self.block_buffer();
        let walked = self.fs.inode(number).and_then(|inode| {
            let end = inode.size / u64::from(self.geometry.block_size);
            runs::visit(self.fs, number, &inode, &mut |run| {
                // What the kernel writes is no longer (`EXT4_MAX_ORPHAN_FILE_SIZE`).
                let run_end = (run.logical + run.len).min(end).min(512 << 10);
                for logical in run.logical..run_end {
                    self.control.check()?;
                    let physical = run.physical + (logical - run.logical);
                    self.fs.read_block(physical, &mut raw)?;
                    visit(logical, &raw, physical);
                }
                Ok(())
            })
        });
        match walked {
            Err(Fault::Host(error)) => Err(error),
            // A map that makes no sense is told of elsewhere.
            Ok(()) | Err(Fault::Nonsense(_)) => Ok(()),
        }
    }
}
