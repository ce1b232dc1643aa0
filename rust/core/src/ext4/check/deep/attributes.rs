//! Extended attributes, in inodes (`check_ea_in_inode`), in blocks
//! (`check_ext_attr`) and in inodes of their own.

use std::collections::HashMap;

use super::Deep;
use crate::error::Result;
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::features::{compat, incompat};
use crate::ext4::read::inode::{flags, Inode, OLD_SIZE};
use crate::ext4::read::xattr::{
    self, block_checksum, entry_hash, entry_hash_signed, padded, value_words, Entry, Header,
    BLOCK_HEADER_SIZE, ENTRY_SIZE, INODE_HEADER_SIZE, MAGIC,
};
use crate::ext4::read::Fault;

/// What is known of blocks of attributes, and of inodes that hold values.
#[derive(Default)]
pub(super) struct Attributes {
    blocks: HashMap<u64, SharedBlock>,
    /// How often each inode with a value is named.
    pub(super) values: HashMap<u32, u64>,
}

struct SharedBlock {
    /// Inodes that it says to be shared by, and that do.
    told: u32,
    found: u32,
    /// Of each that shares it.
    charge: Charge,
}

/// What an inode is charged with for its attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Charge {
    /// Its block of them, and those of values in inodes.
    pub(super) clusters: u64,
    /// Inodes with values.
    pub(super) inodes: u64,
}

impl std::ops::Add for Charge {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            clusters: self.clusters.saturating_add(other.clusters),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

/// A list of entries, and where values may be.
struct List<'a> {
    raw: &'a [u8],
    /// Where the first entry is.
    first: usize,
    /// Where offsets of values are counted from.
    base: usize,
    in_block: bool,
}

impl Deep<'_> {
    /// Looks at the attributes behind the fields of an inode.
    pub(super) fn attributes_in_inode(
        &mut self,
        number: u32,
        raw: &[u8],
        inode: &Inode,
    ) -> Result<Charge> {
        let Some(area) = in_inode(raw, inode) else {
            return Ok(Charge::default());
        };
        let list = List {
            raw: area,
            first: INODE_HEADER_SIZE,
            base: INODE_HEADER_SIZE,
            in_block: false,
        };
        self.list(number, inode, &list)
    }

    fn value_clusters(&self, size: u64) -> u64 {
        size.div_ceil(u64::from(self.geometry.block_size) * u64::from(self.geometry.cluster_ratio))
    }

    /// Looks at an inode's block of attributes.
    pub(super) fn attribute_block(&mut self, number: u32, inode: &Inode) -> Result<Charge> {
        // What else is in the high half is told of ordinary inodes.
        let block = if self.sb.has_incompat(incompat::SIXTY_FOUR_BIT) {
            inode.file_acl
        } else {
            inode.file_acl & 0xffff_ffff
        };
        if block == 0 {
            return Ok(Charge::default());
        }
        if !self.sb.has_compat(compat::EXT_ATTR) || !self.is_inside(block) {
            self.problem(
                "xattr-block",
                format!("inode {number}: its block of attributes, {block}, is not in the file system, or that has none"),
            );
            return Ok(Charge::default());
        }
        if let Some(shared) = self.attributes.blocks.get_mut(&block) {
            shared.found = shared.found.saturating_add(1);
            return Ok(shared.charge);
        }
        self.take(number, "attributes", block);
        let mut charge = Charge {
            clusters: 1,
            inodes: 0,
        };
        let mut raw = self.block_buffer();
        if !self.read_block(block, &mut raw)? {
            return Ok(charge);
        }
        let mut told = 1;
        if let Some(header) = Header::decode(&raw) {
            told = header.h_refcount;
            charge = charge + self.block_list(number, inode, block, &raw, header)?;
        }
        self.attributes.blocks.insert(
            block,
            SharedBlock {
                told,
                found: 1,
                charge,
            },
        );
        Ok(charge)
    }

    fn block_list(
        &mut self,
        number: u32,
        inode: &Inode,
        block: u64,
        raw: &[u8],
        header: Header,
    ) -> Result<Charge> {
        if header.h_magic != MAGIC || header.h_blocks != 1 {
            self.problem(
                "xattr-block",
                format!("inode {number}: block {block} is no block of attributes"),
            );
            return Ok(Charge::default());
        }
        if self.sb.has_checksums() {
            let computed = block_checksum(block, raw, self.seed);
            if computed != header.h_checksum {
                self.problem(
                    "xattr-checksum",
                    format!(
                        "inode {number}: the checksum of its attributes, block {block}, is 0x{:08x}, its bytes give 0x{computed:08x}",
                        header.h_checksum
                    ),
                );
            }
        }
        let list = List {
            raw,
            first: BLOCK_HEADER_SIZE,
            base: 0,
            in_block: true,
        };
        self.list(number, inode, &list)
    }

    /// Looks at all entries; returns what values in inodes cost.
    fn list(&mut self, number: u32, inode: &Inode, list: &List<'_>) -> Result<Charge> {
        // What is taken, by fours: no byte may be of two things.
        let mut taken = vec![false; list.raw.len().div_ceil(4)];
        taken[..list.first / 4].fill(true);
        let mut charge = Charge::default();
        let mut at = list.first;
        let mut room = list.raw.len() - list.first;
        loop {
            let entry = match xattr::entry(list.raw, at) {
                Ok(Some(entry)) => entry,
                Ok(None) if occupy(&mut taken, at, 4) => break,
                // In an inode, e2fsck takes what is shorter than an entry for
                // the end, whatever the four bytes of it are.
                Err(_) if !list.in_block && room < ENTRY_SIZE && occupy(&mut taken, at, 4) => {
                    break;
                }
                _ => {
                    self.problem(
                        "xattr-entry",
                        format!("inode {number}: the list of its attributes has no end, or reaches into a value"),
                    );
                    break;
                }
            };
            let fault = self.entry(number, inode, list, &entry, &mut taken, &mut charge)?;
            if let Some((code, text)) = fault {
                let name = entry.name.escape_ascii();
                self.problem(
                    code,
                    format!("inode {number}: its attribute \"{name}\" {text}"),
                );
                break;
            }
            at += entry.len();
            room = list.raw.len().saturating_sub(at);
        }
        Ok(charge)
    }

    fn entry(
        &mut self,
        number: u32,
        inode: &Inode,
        list: &List<'_>,
        entry: &Entry<'_>,
        taken: &mut [bool],
        charge: &mut Charge,
    ) -> Result<Option<(&'static str, String)>> {
        if !occupy(taken, entry.at, entry.len()) {
            return Ok(Some(("xattr-entry", "lies upon something else".into())));
        }
        if list.in_block && entry.e_name_index == 0 {
            return Ok(Some(("xattr-entry", "has no prefix".into())));
        }
        if entry.e_value_inum != 0 {
            if !self.sb.has_incompat(incompat::EA_INODE) {
                return Ok(Some((
                    "xattr-value",
                    "is in an inode, without the feature ea_inode".into(),
                )));
            }
            let named = self
                .attributes
                .values
                .entry(entry.e_value_inum)
                .or_default();
            *named += 1;
            return self.value_inode(number, inode, entry, charge);
        }
        let (offset, size) = (usize::from(entry.e_value_offs), entry.e_value_size as usize);
        let value = if size == 0 {
            &[][..]
        } else {
            let begin = list.base + offset;
            let end = begin
                .checked_add(padded(size))
                .filter(|end| *end <= list.raw.len());
            let Some(end) = end else {
                return Ok(Some((
                    "xattr-value",
                    format!("has a value of {size} bytes at {offset}, which is behind the end"),
                )));
            };
            if !occupy(taken, begin, padded(size)) {
                return Ok(Some((
                    "xattr-value",
                    format!("has a value at {offset} that lies upon something else"),
                )));
            }
            &list.raw[begin..end]
        };
        let hashes = [
            entry_hash(entry.name, value_words(value)),
            entry_hash_signed(entry.name, value_words(value)),
        ];
        // In inodes old kernels left it out.
        let left_out = !list.in_block && entry.e_hash == 0;
        if !left_out && !hashes.contains(&entry.e_hash) {
            return Ok(Some((
                "xattr-hash",
                format!(
                    "has the hash 0x{:08x}, its bytes give 0x{:08x}",
                    entry.e_hash, hashes[0]
                ),
            )));
        }
        Ok(None)
    }

    /// `check_large_ea_inode`
    fn value_inode(
        &mut self,
        number: u32,
        inode: &Inode,
        entry: &Entry<'_>,
        charge: &mut Charge,
    ) -> Result<Option<(&'static str, String)>> {
        let value = entry.e_value_inum;
        let bad = |text: String| Ok(Some(("xattr-value", text)));
        if value < self.sb.s_first_ino || value > self.sb.s_inodes_count {
            return bad(format!("is in inode {value}, which no file is"));
        }
        let holder = match self.fs.inode(value) {
            Ok(holder) => holder,
            Err(Fault::Host(error)) => return Err(error),
            Err(Fault::Nonsense(text)) => return bad(text),
        };
        if entry.e_value_size == 0 || u64::from(entry.e_value_size) != holder.size {
            return bad(format!(
                "has {} bytes in inode {value}, which has {}",
                entry.e_value_size, holder.size
            ));
        }
        // The hash of the value is kept where other inodes have atime.
        let stored = holder.atime.seconds as u32;
        let hashes = [
            entry_hash(entry.name, std::iter::once(stored)),
            entry_hash_signed(entry.name, std::iter::once(stored)),
        ];
        let lustre =
            holder.mtime.seconds as u32 == number && holder.i_generation == inode.i_generation;
        let hashed = hashes.contains(&entry.e_hash);
        if hashed {
            charge.clusters += self.value_clusters(entry.e_value_size.into());
        }
        charge.inodes += 1;
        if !hashed && !lustre {
            return Ok(Some((
                "xattr-hash",
                format!(
                    "has the hash 0x{:08x}, inode {value} gives 0x{:08x}",
                    entry.e_hash, hashes[0]
                ),
            )));
        }
        if !holder.has(flags::EA_INODE) {
            return bad(format!(
                "is in inode {value}, which is not marked as holding a value"
            ));
        }
        Ok(None)
    }

    /// Whether blocks are shared by as many as they say.
    pub(super) fn shared_attributes(&mut self) {
        let mut blocks: Vec<_> = self
            .attributes
            .blocks
            .iter()
            .map(|(block, shared)| (*block, shared.told, shared.found))
            .collect();
        blocks.sort_unstable();
        for (block, told, found) in blocks {
            if told != found {
                self.problem(
                    "xattr-refcount",
                    format!(
                        "block {block} of attributes tells {told} inodes that share it; {found} do"
                    ),
                );
            }
        }
    }
}

/// From the magic number on, the room for attributes behind an inode's fields;
/// `None` where there are none.
pub(super) fn in_inode<'a>(raw: &'a [u8], inode: &Inode) -> Option<&'a [u8]> {
    let area = raw.get(OLD_SIZE + usize::from(inode.i_extra_isize)..)?;
    (raw.len() > OLD_SIZE && area.len() > INODE_HEADER_SIZE && u32_at(area, 0) == MAGIC)
        .then_some(area)
}

/// Takes bytes of a block; whether they were free.
fn occupy(taken: &mut [bool], at: usize, len: usize) -> bool {
    let Some(range) = taken.get_mut(at / 4..(at + len).div_ceil(4)) else {
        return false;
    };
    let free = !range.contains(&true);
    range.fill(true);
    free
}
