//! Every directory (`e2fsck_pass2`).

use super::htree::Index;
use super::inline::IN_BLOCK;
use super::records::Block;
use super::Deep;
use crate::error::Result;
use crate::ext4::read::dirent;
use crate::ext4::read::features::{compat, incompat};
use crate::ext4::read::inode::{checksum_seed, flags, Inode};
use crate::ext4::read::runs;
use crate::ext4::read::Fault;

/// A directory with so many blocks that are none is not read further.
const TOO_BAD: u32 = 12;

/// The directory that is being read.
pub(super) struct Reading {
    /// Its place in `Deep::directories`.
    pub(super) place: usize,
    pub(super) number: u32,
    pub(super) inode: Inode,
    /// What the checksums of its blocks start from.
    pub(super) seed: u32,
    pub(super) index: Option<Index>,
    /// Blocks with problems.
    pub(super) bad: u32,
}

impl Deep<'_> {
    pub(super) fn every_directory(&mut self) -> Result<()> {
        for place in 0..self.directories.len() {
            self.control.check()?;
            let number = self.directories[place].number;
            let raw = match self.fs.raw_inode(number) {
                Ok(raw) => raw,
                Err(Fault::Host(error)) => return Err(error),
                Err(Fault::Nonsense(_)) => continue,
            };
            if let Some(inode) = Inode::decode(&raw) {
                self.directory(place, number, inode, &raw)?;
            }
            self.control.advance(1);
        }
        Ok(())
    }

    fn directory(&mut self, place: usize, number: u32, inode: Inode, raw: &[u8]) -> Result<()> {
        if inode.has(flags::ENCRYPT) && inode.has(flags::CASEFOLD) {
            self.problem(
                "unsupported-feature",
                format!("inode {number}: it is an encrypted directory that folds cases, which is not looked at"),
            );
        }
        let mut reading = Reading {
            place,
            number,
            seed: checksum_seed(number, inode.i_generation, self.seed),
            index: None,
            bad: 0,
            inode,
        };
        if reading.inode.has(flags::INLINE_DATA) {
            return self.inline_directory(&mut reading, raw);
        }
        let Some(blocks) = self.directory_blocks(&reading)? else {
            return Ok(());
        };
        if reading.inode.has(flags::INDEX) && self.sb.has_compat(compat::DIR_INDEX) {
            reading.index = self.open_index(&reading, &blocks)?;
        }
        let mut buffer = self.block_buffer();
        let mut next = 0;
        for (logical, physical) in blocks.iter().copied() {
            self.control.check()?;
            let holes = self.sb.has_incompat(incompat::LARGE_DIR)
                && !self.sb.has_incompat(incompat::INLINE_DATA);
            let mapped = !reading.inode.has(flags::EXTENTS);
            if logical > next && (!holes || mapped) && (mapped || next == 0) {
                self.problem(
                    "directory-hole",
                    format!("inode {number}: it is a directory with a hole at block {next}"),
                );
            }
            next = logical + 1;
            if !self.read_as_directory.insert(physical) {
                // It was told already that the block is in two files.
                continue;
            }
            if !self.read_block(physical, &mut buffer)? {
                continue;
            }
            self.directory_block(&mut reading, logical, &buffer)?;
            if reading.bad >= TOO_BAD {
                break;
            }
        }
        if reading.bad < TOO_BAD {
            self.index(&reading, &blocks)?;
        }
        Ok(())
    }

    /// The directory's blocks, by their place in it. `None` where its map makes
    /// no sense, which the pass before told.
    fn directory_blocks(&self, reading: &Reading) -> Result<Option<Vec<(u64, u64)>>> {
        let mut blocks = Vec::new();
        let most = self.geometry.blocks;
        let mut visit = |run: runs::Run| {
            if blocks.len() as u64 + run.len > most {
                return Err(Fault::Nonsense(String::new()));
            }
            blocks.extend((0..run.len).map(|offset| (run.logical + offset, run.physical + offset)));
            Ok(())
        };
        match runs::visit(self.fs, reading.number, &reading.inode, &mut visit) {
            Ok(()) => Ok(Some(blocks)),
            Err(Fault::Host(error)) => Err(error),
            // What comes before the nonsense can be read, unless it is too much.
            Err(Fault::Nonsense(text)) if !text.is_empty() => Ok(Some(blocks)),
            Err(Fault::Nonsense(_)) => Ok(None),
        }
    }

    fn directory_block(&mut self, reading: &mut Reading, logical: u64, raw: &[u8]) -> Result<()> {
        let number = reading.number;
        let kind = reading
            .index
            .as_ref()
            .map(|index| index.kind(self, logical, raw));
        let is_leaf = kind.is_none_or(|kind| kind == super::htree::Kind::Leaf);
        let mut len = raw.len();
        if is_leaf && self.sb.has_checksums() {
            if dirent::has_tail(raw) {
                len -= dirent::TAIL_SIZE;
                let sums = dirent::checksums(raw, reading.seed);
                if let Some((stored, computed)) =
                    sums.filter(|(stored, computed)| stored != computed)
                {
                    reading.bad += 1;
                    self.problem(
                        "directory-checksum",
                        format!(
                            "inode {number}: the checksum of its block {logical} is 0x{stored:08x}, its bytes give 0x{computed:08x}"
                        ),
                    );
                }
            } else {
                reading.bad += 1;
                self.problem(
                    "directory-checksum",
                    format!("inode {number}: its block {logical} does not end with a checksum"),
                );
            }
        }
        let block = Block {
            raw: &raw[..len],
            logical,
            of: raw.len(),
        };
        let hashes = self.records(reading, &block);
        if let Some(index) = &mut reading.index {
            index.note(logical, kind, hashes);
        }
        Ok(())
    }

    /// A directory whose records are in `i_block` and in an attribute: the
    /// number of the one above, then records without "." and "..".
    fn inline_directory(&mut self, reading: &mut Reading, raw: &[u8]) -> Result<()> {
        let Some(rest) = Self::inline_rest(raw, &reading.inode) else {
            return Ok(());
        };
        let parent = crate::ext4::read::bytes::u32_at(&reading.inode.i_block, 0);
        self.inline_dots(reading, parent);
        let records = reading.inode.i_block;
        self.records(
            reading,
            &Block {
                raw: &records[4..IN_BLOCK],
                logical: 1,
                of: IN_BLOCK - 4,
            },
        );
        if !rest.is_empty() {
            if rest.len() < dirent::needed(1) || !rest.len().is_multiple_of(4) {
                self.problem(
                    "inline-data",
                    format!(
                        "inode {}: {} bytes of inline data are no directory",
                        reading.number,
                        rest.len()
                    ),
                );
            }
            self.records(
                reading,
                &Block {
                    raw: rest,
                    logical: 1,
                    of: rest.len(),
                },
            );
        }
        Ok(())
    }
}
