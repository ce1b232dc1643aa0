//! The index of a hashed directory (`handle_htree`, `parse_int_node`, and what
//! `e2fsck_pass2` does behind them).

use super::directories::Reading;
use super::Deep;
use crate::error::Result;
use crate::ext4::read::dirent;
use crate::ext4::read::features::incompat;
use crate::ext4::read::hash::Version;
use crate::ext4::read::htree::{self, RootInfo, NODE_OFFSET};
use crate::ext4::read::superblock::FLAG_UNSIGNED_HASH;

/// What a block of the directory looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Root,
    Node,
    Leaf,
}

/// The range of names' hashes in a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hashes(Option<(u32, u32)>);

impl Hashes {
    pub(super) fn note(&mut self, hash: u32) {
        let (least, most) = self.0.unwrap_or((hash, hash));
        self.0 = Some((least.min(hash), most.max(hash)));
    }
}

/// What was found in each block of the directory.
pub(super) struct Index {
    pub(super) version: Version,
    info: RootInfo,
    blocks: Vec<Found>,
}

#[derive(Clone, Copy)]
struct Found {
    kind: Option<Kind>,
    hashes: Hashes,
    named: u8,
}

/// A part of the index.
#[derive(Clone, Copy)]
struct Part {
    block: u32,
    /// Levels above.
    level: u8,
    /// Hashes that may be in it.
    least: u32,
    most: u32,
}

impl Index {
    pub(super) fn kind(&self, deep: &Deep<'_>, logical: u64, raw: &[u8]) -> Kind {
        if logical == 0 {
            return Kind::Root;
        }
        let with_tail = deep.sb.has_checksums();
        let free = dirent::decode(raw, 0, raw.len()).is_some_and(|record| {
            record.inode == 0 && record.rec_len == raw.len() && record.name_len == 0
        });
        let limit = htree::Index::decode(raw, NODE_OFFSET)
            .is_some_and(|index| usize::from(index.limit) == index.right_limit(with_tail));
        if free && limit {
            Kind::Node
        } else {
            Kind::Leaf
        }
    }

    pub(super) fn note(&mut self, logical: u64, kind: Option<Kind>, hashes: Hashes) {
        if let Some(found) = usize::try_from(logical)
            .ok()
            .and_then(|at| self.blocks.get_mut(at))
        {
            found.kind = kind;
            found.hashes = hashes;
        }
    }
}

impl Deep<'_> {
    /// The index of a directory that is said to have one; `None` when its root
    /// makes no sense.
    pub(super) fn open_index(
        &mut self,
        reading: &Reading,
        blocks: &[(u64, u64)],
    ) -> Result<Option<Index>> {
        let number = reading.number;
        let mut raw = self.block_buffer();
        let root = blocks.first().filter(|(logical, _)| *logical == 0);
        let Some((_, physical)) = root else {
            self.problem(
                "htree-root",
                format!("inode {number}: its index has no root"),
            );
            return Ok(None);
        };
        if !self.read_block(*physical, &mut raw)? {
            return Ok(None);
        }
        let Some(info) = RootInfo::decode(&raw) else {
            return Ok(None);
        };
        let most_levels = if self.sb.has_incompat(incompat::LARGE_DIR) {
            3
        } else {
            2
        };
        let unsigned = self.sb.s_flags & FLAG_UNSIGNED_HASH != 0;
        let version = Version::of(info.hash_version, unsigned).filter(|_| info.hash_version <= 2);
        let fault = if info.reserved_zero != 0 || info.info_length < 8 {
            Some("its index has no valid root".to_owned())
        } else if version.is_none() {
            Some(format!(
                "its index has names hashed in way {}",
                info.hash_version
            ))
        } else if info.unused_flags & 1 != 0 {
            Some("its index has a flag that no kernel knows".to_owned())
        } else if info.indirect_levels >= most_levels {
            Some(format!(
                "its index has {} levels below the root",
                info.indirect_levels
            ))
        } else {
            None
        };
        if let Some(text) = fault {
            self.problem("htree-root", format!("inode {number}: {text}"));
            return Ok(None);
        }
        let end = blocks.last().map_or(0, |(logical, _)| logical + 1);
        let Some(version) = version else {
            return Ok(None);
        };
        // Holes make it longer than its blocks; that is told elsewhere.
        let len = usize::try_from(end)
            .unwrap_or(0)
            .min(blocks.len().saturating_mul(2));
        let found = Found {
            kind: None,
            hashes: Hashes::default(),
            named: 0,
        };
        Ok(Some(Index {
            version,
            info,
            blocks: vec![found; len],
        }))
    }

    /// Follows the index from its root: every leaf has to be named once, at the
    /// same depth, and to have the names that its place says.
    pub(super) fn index(&mut self, reading: &Reading, blocks: &[(u64, u64)]) -> Result<()> {
        let Some(index) = &reading.index else {
            return Ok(());
        };
        let mut named = index.blocks.clone();
        let root = Part {
            block: 0,
            level: 0,
            least: 0,
            most: u32::MAX,
        };
        self.part(reading, index, blocks, &mut named, root)?;
        for (logical, found) in named.iter().enumerate().skip(1) {
            if found.kind.is_some() && found.named != 1 {
                self.problem(
                    "htree-reference",
                    format!(
                        "inode {}: its block {logical} is {} in its index",
                        reading.number,
                        if found.named == 0 { "not" } else { "twice" }
                    ),
                );
            }
        }
        Ok(())
    }

    fn part(
        &mut self,
        reading: &Reading,
        index: &Index,
        blocks: &[(u64, u64)],
        named: &mut [Found],
        part: Part,
    ) -> Result<()> {
        let number = reading.number;
        let place = part.block as usize;
        let Some(found) = named.get_mut(place) else {
            self.problem(
                "htree-block",
                format!(
                    "inode {number}: its index names block {place}, of {}",
                    index.blocks.len()
                ),
            );
            return Ok(());
        };
        found.named = found.named.saturating_add(1);
        let (kind, hashes, again) = (found.kind, found.hashes, found.named > 1);
        let Some(kind) = kind else {
            return Ok(());
        };
        let leaf_level = index.info.indirect_levels + 1;
        if (kind == Kind::Leaf) != (part.level == leaf_level) {
            self.problem(
                "htree-depth",
                format!("inode {number}: its block {place} is at level {} of its index, of {leaf_level}", part.level),
            );
            return Ok(());
        }
        if kind == Kind::Leaf {
            if let Some((least, most)) = hashes.0 {
                if least < part.least || most > part.most {
                    self.problem(
                        "htree-hash",
                        format!(
                            "inode {number}: its block {place} has names of 0x{least:08x} to 0x{most:08x}, its index says 0x{:08x} to 0x{:08x}",
                            part.least, part.most
                        ),
                    );
                }
            }
            return Ok(());
        }
        if again {
            return Ok(());
        }
        let physical = blocks
            .binary_search_by_key(&u64::from(part.block), |(logical, _)| *logical)
            .ok()
            .and_then(|at| blocks.get(at));
        let Some((_, physical)) = physical else {
            return Ok(());
        };
        let mut raw = self.block_buffer();
        if !self.read_block(*physical, &mut raw)? {
            return Ok(());
        }
        self.entries(reading, index, blocks, named, part, &raw)
    }

    fn entries(
        &mut self,
        reading: &Reading,
        index: &Index,
        blocks: &[(u64, u64)],
        named: &mut [Found],
        part: Part,
        raw: &[u8],
    ) -> Result<()> {
        let (number, place) = (reading.number, part.block);
        let at = if part.block == 0 {
            index.info.index_at()
        } else {
            NODE_OFFSET
        };
        let Some(node) = htree::Index::decode(raw, at) else {
            self.problem(
                "htree-root",
                format!("inode {number}: its index has no room for an entry"),
            );
            return Ok(());
        };
        let with_tail = self.sb.has_checksums();
        let limit = node.right_limit(with_tail);
        if usize::from(node.limit) != limit {
            self.problem(
                "htree-limit",
                format!(
                    "inode {number}: block {place} of its index tells room for {}, not {limit}",
                    node.limit
                ),
            );
        }
        if usize::from(node.count) > limit || node.count == 0 {
            self.problem(
                "htree-count",
                format!(
                    "inode {number}: block {place} of its index tells {} entries, of {limit}",
                    node.count
                ),
            );
        }
        if with_tail {
            let sums = node.checksums(reading.seed);
            if sums.is_none_or(|(stored, computed)| stored != computed) {
                self.problem(
                    "htree-checksum",
                    format!("inode {number}: the checksum of block {place} of its index is not that of its bytes"),
                );
            }
        }
        let count = usize::from(node.count).min(limit);
        let hash_of =
            |number: usize, entry: htree::Entry| if number == 0 { 0 } else { entry.hash & !1 };
        let mut before = 0;
        for entry_number in 0..count {
            self.control.check()?;
            let Some(entry) = node.entry(entry_number) else {
                break;
            };
            let hash = hash_of(entry_number, entry);
            if hash < before {
                self.problem(
                    "htree-order",
                    format!("inode {number}: entry {entry_number} of block {place} of its index is not in order"),
                );
            }
            before = hash;
            let next = (entry_number + 1 < count)
                .then(|| node.entry(entry_number + 1))
                .flatten();
            let below = Part {
                block: entry.block,
                level: part.level + 1,
                least: if entry_number == 0 { part.least } else { hash },
                most: next.map_or(part.most, |next| next.hash & !1),
            };
            self.part(reading, index, blocks, named, below)?;
        }
        Ok(())
    }
}
