//! Replays a journal in memory, as the kernel does when it mounts a file system
//! that was not unmounted (`jbd2_journal_recover`).
//!
//! Nothing is written: which block of the journal stands for which block of the
//! file system is kept, and [`super::image::Image`] reads those in its place.
//! Three passes over the log, as in the kernel: up to where it is complete, what
//! was revoked, and what is to be replayed.

use std::collections::HashMap;

use super::bytes::{be16_at, be32_at, hilo};
use super::checksum::crc32c;
use super::features::incompat;
use super::filesystem::Filesystem;
use super::image::Patch;
use super::runs::{self, Run};
use super::superblock::Journal;
use super::{Fault, Read};
use crate::control::Control;

/// `JBD2_MAGIC_NUMBER`
const MAGIC: u32 = 0xc03b_3998;
/// Types of blocks (`JBD2_DESCRIPTOR_BLOCK` and so on).
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;
/// Bytes of `journal_header_t`.
const HEADER_SIZE: usize = 12;
/// Bytes of `jbd2_journal_revoke_header_t`.
const REVOKE_HEADER_SIZE: usize = 16;
/// Bytes of `struct jbd2_journal_block_tail`.
const TAIL_SIZE: usize = 4;
/// Where `h_chksum` is in a commit block.
const COMMIT_CHECKSUM: usize = 16;
/// Where `h_commit_sec` is, and the bytes of `struct commit_header`.
const COMMIT_TIME: usize = 48;
const COMMIT_SIZE: usize = 60;
/// Bytes of the journal's superblock, and where its checksum is.
const SUPERBLOCK_SIZE: usize = 1024;
const SUPERBLOCK_CHECKSUM: usize = 0xfc;
/// A block was written with its first four bytes as zeros, for they were
/// [`MAGIC`] (`JBD2_FLAG_ESCAPE`).
const FLAG_ESCAPE: u32 = 1;
/// No UUID follows (`JBD2_FLAG_SAME_UUID`).
const FLAG_SAME_UUID: u32 = 2;
/// The last tag of its block (`JBD2_FLAG_LAST_TAG`).
const FLAG_LAST_TAG: u32 = 8;

/// `JBD2_FEATURE_COMPAT_CHECKSUM`: each commit has a checksum of all its blocks.
const COMPAT_CHECKSUM: u32 = 0x1;
/// `JBD2_FEATURE_INCOMPAT_*`
const INCOMPAT_REVOKE: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
/// What is followed here: neither asynchronous nor fast commits.
const INCOMPAT_KNOWN: u32 = INCOMPAT_REVOKE | INCOMPAT_64BIT | INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3;

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Complete transactions.
    pub transactions: u32,
    /// Blocks of the file system that are read from the journal now.
    pub blocks: usize,
}

/// Replays the journal if it is to be, and takes the superblock anew.
///
/// # Errors
/// When the journal lies on another device, has features that are not known, or
/// makes no sense where the kernel refuses the mount for it; and
/// [`crate::Error::Interrupted`].
pub fn replay(fs: &mut Filesystem, control: &Control) -> Read<Replayed> {
    if !fs.sb.has_incompat(incompat::RECOVER) {
        return Ok(Replayed::default());
    }
    let Journal::Internal(number) = fs.sb.journal() else {
        return nonsense("its journal, which is to be replayed, is on another device");
    };
    let Some(log) = Log::open(fs, number, control)? else {
        return Ok(Replayed::default());
    };
    let end = log.scan()?;
    let revoked = log.revoked(end)?;
    let patches = log.patches(end, &revoked)?;
    let replayed = Replayed {
        transactions: end.wrapping_sub(log.first_sequence),
        blocks: patches.len(),
    };
    let block_size = fs.geometry.block_size;
    fs.image.patch(block_size, patches);
    fs.reopen()?;
    Ok(replayed)
}

fn nonsense<T>(text: impl std::fmt::Display) -> Read<T> {
    Err(Fault::Nonsense(text.to_string()))
}

struct Log<'a> {
    fs: &'a Filesystem,
    control: &'a Control,
    runs: Vec<Run>,
    /// The log is a ring of the journal's blocks from this one on ...
    first: u32,
    /// ... up to before this one.
    end: u32,
    start: u32,
    first_sequence: u32,
    incompat: u32,
    /// What checksums start from.
    seed: u32,
}

/// A block of the log that is no data.
struct Found {
    kind: u32,
    sequence: u32,
    block: Vec<u8>,
    /// Where the blocks behind it begin.
    behind: u32,
}

/// An entry of a descriptor.
struct Tag {
    block: u64,
    flags: u32,
    checksum: u32,
}

impl<'a> Log<'a> {
    /// `None` when nothing is to be replayed.
    fn open(fs: &'a Filesystem, number: u32, control: &'a Control) -> Read<Option<Self>> {
        let inode = fs.inode(number)?;
        let mut runs = Vec::new();
        runs::visit(fs, number, &inode, &mut |run| {
            if runs.len() > 1 << 20 {
                return nonsense("its journal is in more than 1,048,576 pieces");
            }
            runs.push(run);
            Ok(())
        })?;
        let mut log = Self {
            fs,
            control,
            runs,
            first: 0,
            end: 0,
            start: 0,
            first_sequence: 0,
            incompat: 0,
            seed: 0,
        };
        let block = log.block(0)?;
        let sb = &block[..SUPERBLOCK_SIZE];
        let version = be32_at(sb, 4);
        if be32_at(sb, 0) != MAGIC || !matches!(version, SUPERBLOCK_V1 | SUPERBLOCK_V2) {
            return nonsense("its journal has no superblock");
        }
        if be32_at(sb, 0x0c) != fs.geometry.block_size {
            return nonsense(format_args!(
                "its journal has blocks of {} bytes",
                be32_at(sb, 0x0c)
            ));
        }
        let mut compat = 0;
        if version == SUPERBLOCK_V2 {
            compat = be32_at(sb, 0x24);
            log.incompat = be32_at(sb, 0x28);
        }
        if log.incompat & !INCOMPAT_KNOWN != 0 || compat & COMPAT_CHECKSUM != 0 {
            return nonsense(format_args!(
                "its journal, which is to be replayed, has features that are not known here \
                 (compat {compat:#x}, incompat {:#x}); mount it once, or run e2fsck",
                log.incompat
            ));
        }
        if log.has_checksums() {
            log.seed = crc32c(!0, &sb[0x30..0x40]);
            let stored = be32_at(sb, SUPERBLOCK_CHECKSUM);
            let computed = without(!0, sb, SUPERBLOCK_CHECKSUM);
            if stored != computed {
                return nonsense(format_args!(
                    "its journal's superblock has the checksum {stored:08x}, not {computed:08x}"
                ));
            }
        }
        log.end = be32_at(sb, 0x10);
        log.first = be32_at(sb, 0x14);
        log.first_sequence = be32_at(sb, 0x18);
        log.start = be32_at(sb, 0x1c);
        if log.start == 0 {
            return Ok(None);
        }
        let size = inode.size / u64::from(fs.geometry.block_size);
        let inside = log.first > 0 && (log.first..log.end).contains(&log.start);
        if !inside || u64::from(log.end) > size {
            return nonsense(format_args!(
                "its journal begins at block {} of {} to {}, and has {size}",
                log.start, log.first, log.end
            ));
        }
        Ok(Some(log))
    }

    const fn has_checksums(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    /// Where a block of the journal is in the image.
    fn place(&self, number: u32) -> Read<u64> {
        let logical = u64::from(number);
        let at = self
            .runs
            .partition_point(|run| run.logical + run.len <= logical);
        match self.runs.get(at) {
            Some(run) if run.logical <= logical && !run.unwritten => {
                Ok(run.physical + (logical - run.logical))
            }
            _ => nonsense(format_args!("its journal has no block {number}")),
        }
    }

    fn block(&self, number: u32) -> Read<Vec<u8>> {
        self.fs.block(self.place(number)?)
    }

    /// `steps` blocks further round the ring.
    fn step(&self, at: u32, steps: usize) -> u32 {
        let length = u64::from(self.end - self.first);
        let from = u64::from(at - self.first);
        // OK to cut: below `end`.
        self.first + ((from + steps as u64) % length) as u32
    }

    /// Calls `work` with the log's blocks that are no data, as long as they
    /// belong to the next transaction, until it says where the log ends or the
    /// log does. Returns the number of the first transaction that is not there.
    fn pass(&self, mut work: impl FnMut(&Found) -> Read<bool>) -> Read<u32> {
        let mut sequence = self.first_sequence;
        let mut at = self.start;
        // More than that would be one of them a second time.
        let mut left = u64::from(self.end - self.first);
        loop {
            self.control.check()?;
            let block = self.block(at)?;
            let kind = be32_at(&block, 4);
            if be32_at(&block, 0) != MAGIC || be32_at(&block, 8) != sequence {
                return Ok(sequence);
            }
            let found = Found {
                kind,
                sequence,
                behind: self.step(at, 1),
                block,
            };
            let data = match kind {
                DESCRIPTOR => self.tags(&found.block).len(),
                COMMIT | REVOKE => 0,
                _ => return Ok(sequence),
            };
            let taken = 1 + data as u64;
            if taken > left || !work(&found)? {
                return Ok(sequence);
            }
            left -= taken;
            at = self.step(found.behind, data);
            if kind == COMMIT {
                sequence = sequence.wrapping_add(1);
            }
        }
    }

    /// Up to which transaction the log is complete.
    ///
    /// A wrong checksum is damage, for which the kernel refuses the mount, or
    /// was left by an earlier round of the ring: then its commit is older than
    /// the one before (`do_one_pass`).
    fn scan(&self) -> Read<u32> {
        let mut last_time = 0;
        let mut doubtful = false;
        self.pass(|found| {
            if found.kind != COMMIT {
                doubtful |= !self.tail_is_right(&found.block);
                return Ok(true);
            }
            let time = hilo(
                be32_at(&found.block, COMMIT_TIME),
                be32_at(&found.block, COMMIT_TIME + 4),
            );
            if doubtful || !self.commit_is_right(&found.block) {
                if time < last_time {
                    return Ok(false);
                }
                return nonsense(format_args!(
                    "its journal has a wrong checksum in transaction {}",
                    found.sequence
                ));
            }
            last_time = time;
            Ok(true)
        })
    }

    /// Of a commit that was written in part the header is enough
    /// (`jbd2_commit_block_csum_verify_partial`).
    fn commit_is_right(&self, block: &[u8]) -> bool {
        let is_right = |block: &[u8]| {
            without(self.seed, block, COMMIT_CHECKSUM) == be32_at(block, COMMIT_CHECKSUM)
        };
        let header_alone = || {
            let mut alone = vec![0; block.len()];
            alone[..COMMIT_SIZE].copy_from_slice(&block[..COMMIT_SIZE]);
            alone
        };
        !self.has_checksums() || is_right(block) || is_right(&header_alone())
    }

    fn tail_is_right(&self, block: &[u8]) -> bool {
        let at = block.len() - TAIL_SIZE;
        !self.has_checksums() || without(self.seed, block, at) == be32_at(block, at)
    }

    /// The last transaction that revoked each block.
    fn revoked(&self, end: u32) -> Read<HashMap<u64, u32>> {
        let mut revoked = HashMap::new();
        self.pass(|found| {
            if found.sequence == end {
                return Ok(false);
            }
            if found.kind != REVOKE {
                return Ok(true);
            }
            let room = found.block.len() - if self.has_checksums() { TAIL_SIZE } else { 0 };
            let used = be32_at(&found.block, HEADER_SIZE) as usize;
            if used > room {
                return nonsense("its journal has a block of revocations that is too long");
            }
            let wide = self.incompat & INCOMPAT_64BIT != 0;
            let size = if wide { 8 } else { 4 };
            let records = found
                .block
                .get(REVOKE_HEADER_SIZE..used)
                .unwrap_or_default();
            for record in records.chunks_exact(size) {
                let block = if wide {
                    hilo(be32_at(record, 0), be32_at(record, 4))
                } else {
                    be32_at(record, 0).into()
                };
                // Transactions come in order.
                revoked.insert(block, found.sequence);
            }
            Ok(true)
        })?;
        Ok(revoked)
    }

    fn patches(&self, end: u32, revoked: &HashMap<u64, u32>) -> Read<HashMap<u64, Patch>> {
        let mut patches = HashMap::new();
        self.pass(|found| {
            if found.sequence == end {
                return Ok(false);
            }
            if found.kind != DESCRIPTOR {
                return Ok(true);
            }
            for (number, tag) in self.tags(&found.block).iter().enumerate() {
                // A block is revoked for the transaction that says so and those
                // before it (`jbd2_journal_test_revoke`).
                let before = |last: &u32| found.sequence.wrapping_sub(*last).cast_signed() <= 0;
                if revoked.get(&tag.block).is_some_and(before) {
                    continue;
                }
                let from = self.place(self.step(found.behind, number))?;
                self.verify(tag, found.sequence, from)?;
                // By the device, not by the superblock: that of a file system which was made larger
                // may be in the log, as its new groups' blocks are.
                if tag.block >= self.device_blocks() {
                    return nonsense(format_args!(
                        "its journal has block {}, which is behind the end",
                        tag.block
                    ));
                }
                let escaped = tag.flags & FLAG_ESCAPE != 0;
                patches.insert(tag.block, Patch { from, escaped });
            }
            Ok(true)
        })?;
        Ok(patches)
    }

    fn device_blocks(&self) -> u64 {
        self.fs.image.size() / u64::from(self.fs.geometry.block_size)
    }

    /// `jbd2_block_tag_csum_verify`
    fn verify(&self, tag: &Tag, sequence: u32, from: u64) -> Read<()> {
        if !self.has_checksums() {
            return Ok(());
        }
        let data = self.fs.block(from)?;
        let mut computed = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), &data);
        if self.incompat & INCOMPAT_CSUM_V3 == 0 {
            computed &= 0xffff;
        }
        if computed == tag.checksum {
            return Ok(());
        }
        nonsense(format_args!(
            "its journal has for block {} the checksum {:08x}, not {computed:08x}",
            tag.block, tag.checksum
        ))
    }

    /// The entries of a descriptor (`journal_tag_bytes` and `count_tags`).
    fn tags(&self, block: &[u8]) -> Vec<Tag> {
        let third = self.incompat & INCOMPAT_CSUM_V3 != 0;
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        let size = if third {
            16
        } else {
            8 + if wide { 4 } else { 0 }
                + if self.incompat & INCOMPAT_CSUM_V2 != 0 {
                    2
                } else {
                    0
                }
        };
        let room = block.len() - if self.has_checksums() { TAIL_SIZE } else { 0 };
        let mut tags = Vec::new();
        let mut at = HEADER_SIZE;
        while let Some(raw) = block[..room].get(at..at + size) {
            let (flags, checksum) = if third {
                (be32_at(raw, 4), be32_at(raw, 12))
            } else {
                (be16_at(raw, 6).into(), be16_at(raw, 4).into())
            };
            let high = if wide { be32_at(raw, 8) } else { 0 };
            tags.push(Tag {
                block: hilo(high, be32_at(raw, 0)),
                flags,
                checksum,
            });
            at += size + if flags & FLAG_SAME_UUID == 0 { 16 } else { 0 };
            if flags & FLAG_LAST_TAG != 0 {
                break;
            }
        }
        tags
    }
}

/// The checksum of a block whose own four bytes of it, at `at`, count as zeros.
fn without(seed: u32, block: &[u8], at: usize) -> u32 {
    let register = crc32c(crc32c(seed, &block[..at]), &[0; 4]);
    crc32c(register, &block[at + 4..])
}
