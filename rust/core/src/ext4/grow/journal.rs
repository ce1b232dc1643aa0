//! The image's own journal (jbd2) as the way to change many blocks at once:
//! what is in it is carried out whole by whoever opens the image next.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::Disk;
use super::fault::{unclean, unsound};
use super::inode;
use super::shape::Shape;
use crate::error::Result;
use crate::ext4::format::checksum::Checksum;
use crate::ext4::format::{high32, low16, low32};
use crate::ext4::read::superblock::{Journal as Place, Superblock};

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
/// `s_feature_incompat`: revoke, 64bit, async_commit, csum v2, csum v3, fast commit.
const SIXTY_FOUR_BIT: u32 = 0x2;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
const KNOWN: u32 = 0x3f;
/// `JBD2_FLAG_*`: the block begins with the magic number, which was taken off;
/// no UUID follows; it is the last one.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
/// `JBD2_DEFAULT_FAST_COMMIT_BLOCKS`
const FAST_COMMIT_BLOCKS: u32 = 256;

/// A journal that is empty, and room enough in it.
#[derive(Debug)]
pub(super) struct Journal {
    /// Its superblock.
    raw: Vec<u8>,
    at: u64,
    /// Where the blocks from `s_first` on lie in the image.
    blocks: Vec<u64>,
    block_size: usize,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put_be32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

impl Journal {
    /// The journal, if it takes a transaction of `count` blocks; else why not.
    pub(super) fn open(
        disk: &Disk,
        shape: &Shape,
        sb: &Superblock,
        count: u64,
    ) -> Result<Result<Self, String>> {
        let number = match sb.journal() {
            Place::Internal(number) => number,
            Place::None => return Ok(Err("the image has no journal".into())),
            Place::External(_) => return Ok(Err("the journal is on another device".into())),
        };
        let (_, raw) = inode::load(disk, shape, sb, number)?;
        let inode = inode::decode(disk, &raw)?;
        // e2fsck takes that one when the inode is lost.
        if sb.s_jnl_backup_type == 1 && sb.s_jnl_blocks[..60] != inode.i_block {
            return Ok(Err(
                "the journal's map is another than the superblock's copy of it".into(),
            ));
        }
        let places = inode::places(disk, shape, number, &inode)?;
        let Some(at) = places.block(0) else {
            return Ok(Err("the journal has no first block".into()));
        };
        let block_size = shape.block_size as usize;
        let raw = disk.read(shape.byte(at), 1024)?;
        let version = be32(&raw, 4);
        if be32(&raw, 0) != MAGIC
            || !(3..=4).contains(&version)
            || be32(&raw, 0x0c) != shape.block_size
        {
            return Ok(Err("the journal's superblock is senseless".into()));
        }
        if be32(&raw, 0x1c) != 0 || be32(&raw, 0x20) != 0 {
            return Err(unclean(
                disk.path(),
                "its journal is not empty, or records an error",
            ));
        }
        let mut journal = Self {
            raw,
            at: shape.byte(at),
            blocks: Vec::new(),
            block_size,
        };
        let features = journal.features();
        if features & !KNOWN != 0 {
            return Ok(Err(
                "the journal has features that are not known here".into()
            ));
        }
        if features & CSUM_V2 != 0 && features & CSUM_V3 != 0 {
            return Ok(Err("the journal's checksums are senseless".into()));
        }
        let (first, mut end) = (be32(&journal.raw, 0x14), be32(&journal.raw, 0x10));
        if features & FAST_COMMIT != 0 {
            let said = be32(&journal.raw, 0x54);
            let fast = if said == 0 { FAST_COMMIT_BLOCKS } else { said };
            end = end.saturating_sub(fast);
        }
        // One more that ends what is carried out.
        let need = count + count.div_ceil(journal.tags_per_block() as u64) + 2;
        if first == 0 || u64::from(end) < u64::from(first) + need {
            return Ok(Err(format!(
                "the journal has room for {} blocks of {need}",
                end.saturating_sub(first)
            )));
        }
        // OK to cut: fewer than `end`.
        for logical in first..first + need as u32 {
            let Some(block) = places.block(logical.into()) else {
                return Ok(Err("the journal has a hole".into()));
            };
            journal.blocks.push(shape.byte(block));
        }
        let places: BTreeSet<u64> = journal.blocks.iter().copied().chain([journal.at]).collect();
        if places.len() <= journal.blocks.len() {
            return Err(unsound(disk.path(), "the journal has a block twice".into()));
        }
        Ok(Ok(journal))
    }

    fn features(&self) -> u32 {
        // Version 1 has none.
        if be32(&self.raw, 4) == 4 {
            be32(&self.raw, 0x28)
        } else {
            0
        }
    }

    fn has_checksums(&self) -> bool {
        self.features() & (CSUM_V2 | CSUM_V3) != 0
    }

    fn seed(&self) -> Checksum {
        if self.has_checksums() {
            Checksum::new().bytes(&self.raw[0x30..0x40])
        } else {
            Checksum::off()
        }
    }

    /// `journal_tag_bytes`
    fn tag_bytes(&self) -> usize {
        let features = self.features();
        if features & CSUM_V3 != 0 {
            return 16;
        }
        let sums = if features & CSUM_V2 != 0 { 2 } else { 0 };
        let high = if features & SIXTY_FOUR_BIT != 0 { 4 } else { 0 };
        8 + sums + high
    }

    fn tags_per_block(&self) -> usize {
        // Header, the first tag's UUID, and the checksum at the end.
        (self.block_size - 12 - 16 - 4) / self.tag_bytes()
    }

    /// The transaction's number. It is not the next one: what is written and then
    /// not decided stays in the log, and the kernel goes on to write there. Were
    /// a transaction of the same number cut off, ours might end it. The kernel
    /// comes to this number when it has gone through the whole log.
    fn sequence(&self) -> u32 {
        be32(&self.raw, 0x18).wrapping_add(be32(&self.raw, 0x10))
    }

    fn header(&self, kind: u32) -> Vec<u8> {
        let mut block = vec![0; self.block_size];
        put_be32(&mut block, 0, MAGIC);
        put_be32(&mut block, 4, kind);
        put_be32(&mut block, 8, self.sequence());
        block
    }

    /// Takes the room for what decides.
    pub(super) fn reserve(&self, disk: &Disk) -> Result<()> {
        disk.reserve(self.at, 512)
    }

    /// Writes a transaction, which nobody looks at before [`Self::begin`].
    pub(super) fn write(&self, disk: &mut Disk, changed: &BTreeMap<u64, Vec<u8>>) -> Result<()> {
        let own = |block: &u64| {
            let at = block * self.block_size as u64;
            at == self.at || self.blocks.contains(&at)
        };
        if let Some(block) = changed.keys().find(|block| own(block)) {
            return Err(unsound(
                disk.path(),
                format!("block {block} is the journal's and something else"),
            ));
        }
        let mut places = self.blocks.iter().copied();
        let mut next = || places.next().ok_or_else(|| too_small(disk_path(disk)));
        let mut out = Vec::new();
        let all: Vec<(&u64, &Vec<u8>)> = changed.iter().collect();
        for part in all.chunks(self.tags_per_block()) {
            let (descriptor, blocks) = self.describe(part);
            out.push((next()?, descriptor));
            for block in blocks {
                out.push((next()?, block));
            }
        }
        out.push((next()?, self.commit()));
        // Of an older life of the journal the next sequence might follow.
        out.push((next()?, vec![0; self.block_size]));
        for (at, block) in out {
            disk.write(at, &block)?;
        }
        Ok(())
    }

    fn describe(&self, part: &[(&u64, &Vec<u8>)]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut descriptor = self.header(DESCRIPTOR);
        let mut blocks = Vec::new();
        let mut at = 12;
        for (number, &(&block, bytes)) in part.iter().enumerate() {
            let mut flags = if number > 0 { SAME_UUID } else { 0 };
            if number + 1 == part.len() {
                flags |= LAST;
            }
            let mut bytes = bytes.clone();
            if be32(&bytes, 0) == MAGIC {
                put_be32(&mut bytes, 0, 0);
                flags |= ESCAPED;
            }
            let sum = self
                .seed()
                .bytes(&self.sequence().to_be_bytes())
                .bytes(&bytes);
            put_be32(&mut descriptor, at, low32(block));
            if self.features() & CSUM_V3 != 0 {
                put_be32(&mut descriptor, at + 4, flags);
                put_be32(&mut descriptor, at + 8, high32(block));
                put_be32(&mut descriptor, at + 12, sum.value());
            } else {
                let sum = low16(sum.value());
                descriptor[at + 4..at + 6].copy_from_slice(&sum.to_be_bytes());
                descriptor[at + 6..at + 8].copy_from_slice(&low16(flags).to_be_bytes());
                if self.features() & SIXTY_FOUR_BIT != 0 {
                    put_be32(&mut descriptor, at + 8, high32(block));
                }
            }
            at += self.tag_bytes();
            if number == 0 {
                descriptor[at..at + 16].copy_from_slice(&self.raw[0x30..0x40]);
                at += 16;
            }
            blocks.push(bytes);
        }
        if self.has_checksums() {
            let sum = self.seed().bytes(&descriptor).value();
            put_be32(&mut descriptor, self.block_size - 4, sum);
        }
        (descriptor, blocks)
    }

    fn commit(&self) -> Vec<u8> {
        let mut block = self.header(COMMIT);
        if self.has_checksums() {
            let sum = self.seed().bytes(&block).value();
            put_be32(&mut block, 0x10, sum); // h_chksum[0]
        }
        block
    }

    /// From now on the transaction is to be carried out: one sector decides it.
    pub(super) fn begin(&self, disk: &mut Disk) -> Result<()> {
        self.write_superblock(disk, be32(&self.raw, 0x14), self.sequence())
    }

    /// It is not to be carried out: the journal is as it was.
    pub(super) fn forget(&self, disk: &mut Disk) -> Result<()> {
        self.write_superblock(disk, 0, be32(&self.raw, 0x18))
    }

    /// It was carried out: the journal is empty.
    pub(super) fn end(&self, disk: &mut Disk) -> Result<()> {
        let next = self.sequence().wrapping_add(1);
        self.write_superblock(disk, 0, next)
    }

    fn write_superblock(&self, disk: &mut Disk, start: u32, sequence: u32) -> Result<()> {
        let mut raw = self.raw.clone();
        put_be32(&mut raw, 0x18, sequence);
        put_be32(&mut raw, 0x1c, start);
        if self.has_checksums() {
            put_be32(&mut raw, 0xfc, 0);
            let sum = Checksum::new().bytes(&raw).value();
            put_be32(&mut raw, 0xfc, sum);
        }
        disk.write(self.at, &raw[..512])
    }
}

fn disk_path(disk: &Disk) -> &std::path::Path {
    disk.path()
}

fn too_small(path: &std::path::Path) -> crate::error::Error {
    super::fault::unsupported(path, "its journal is too small")
}
