//! How a directory's entries are divided into blocks: as they are where one
//! block holds them, else sorted by hash into leaves below an index.

use std::collections::HashMap;
use std::ops::Range;

use crate::ext4::format::dirent::{record_size, room};
use crate::ext4::format::htree::{self, node_limit, root_limit, DxEntry};
use crate::ext4::format::BlockSize;
use crate::tree::{Directory, NodeId, Tree};

/// The directory that e2fsck links lost files into.
pub(crate) const LOST_AND_FOUND_NAME: &[u8] = b"lost+found";

/// Bytes of the records "." and "..".
const DOTS: usize = record_size(1) + record_size(2);

/// Blocks of every directory.
#[derive(Debug)]
pub(crate) struct Directories {
    /// Those of more than one block.
    hashed: HashMap<NodeId, Hashed>,
    /// The directory that gets a `lost+found` of our making.
    lost_and_found_in: Option<NodeId>,
}

/// A directory with an index. Its blocks are: the root, the nodes, level by
/// level from the one below the root on, the leaves.
#[derive(Debug)]
pub(crate) struct Hashed {
    /// Entries (by their place in the directory, see [`Listed`]), by hash.
    order: Box<[u32]>,
    leaves: Box<[Leaf]>,
    block_size: BlockSize,
    /// Nodes of each level between root and leaves, from the root down.
    levels: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    /// Its first entry's place in `order`.
    start: u32,
    /// Least hash; bit 0 when the leaf before ends with the same one.
    hash: u32,
}

/// An entry of a directory as it is listed: one of the tree's, or the
/// `lost+found` of our making, which comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// The entry of that index.
    Entry(usize),
    /// Ours.
    LostAndFound,
}

/// What one block of a directory holds.
#[derive(Debug)]
pub(crate) enum Block<'a> {
    /// All there is, with "." and "..".
    Only,
    /// The root of the index over these blocks.
    Root(&'a Hashed),
    /// A node of the index.
    Node(&'a Hashed, u32),
    /// A leaf.
    Leaf(&'a Hashed, u32),
}

impl Directories {
    /// Divides the entries of all directories of `tree`. `lost_and_found` says
    /// whether the root gets one of our making.
    pub(crate) fn new(
        tree: &Tree,
        lost_and_found: bool,
        block_size: BlockSize,
        hash_seed: &[u8; 16],
    ) -> Self {
        let mut directories = Self {
            hashed: HashMap::new(),
            lost_and_found_in: lost_and_found.then_some(tree.root()),
        };
        for (id, node) in tree.nodes() {
            if node.links == 0 && id != tree.root() {
                continue;
            }
            let Some(directory) = tree.directory(id) else {
                continue;
            };
            let ours = directories.has_lost_and_found(id);
            let records: usize = directory
                .entries
                .iter()
                .map(|entry| record_size(entry.name.len()))
                .sum();
            let own = if ours {
                record_size(LOST_AND_FOUND_NAME.len())
            } else {
                0
            };
            if DOTS + records + own > room(block_size) {
                let hashed = Hashed::new(tree, directory, ours, block_size, hash_seed);
                directories.hashed.insert(id, hashed);
            }
        }
        directories
    }

    fn has_lost_and_found(&self, directory: NodeId) -> bool {
        self.lost_and_found_in == Some(directory)
    }

    /// How many blocks the directory has.
    pub(crate) fn blocks(&self, directory: NodeId) -> u32 {
        self.hashed.get(&directory).map_or(1, Hashed::blocks)
    }

    /// Whether the directory has an index.
    pub(crate) fn is_hashed(&self, directory: NodeId) -> bool {
        self.hashed.contains_key(&directory)
    }

    /// The first directory whose index has more levels than the kernel reads
    /// without `large_dir` (`ext4_dir_htree_level`).
    pub(crate) fn first_large(&self) -> Option<NodeId> {
        let hashed = self.hashed.iter();
        let large = hashed.filter(|(_, hashed)| hashed.levels.len() > 1);
        large.map(|(&id, _)| id).min_by_key(|id| id.index())
    }

    /// What block `block` of the directory holds.
    pub(crate) fn block(&self, directory: NodeId, block: u32) -> Block<'_> {
        let Some(hashed) = self.hashed.get(&directory) else {
            return Block::Only;
        };
        let first_leaf = 1 + hashed.nodes() as u32;
        match block {
            0 => Block::Root(hashed),
            node if node < first_leaf => Block::Node(hashed, node),
            leaf => Block::Leaf(hashed, leaf - first_leaf),
        }
    }

    /// The entries of a directory without index.
    pub(crate) fn all(
        &self,
        id: NodeId,
        directory: &Directory,
    ) -> impl Iterator<Item = Listed> + use<> {
        let ours = self.has_lost_and_found(id).then_some(Listed::LostAndFound);
        (0..directory.entries.len()).map(Listed::Entry).chain(ours)
    }
}

impl Hashed {
    fn new(
        tree: &Tree,
        directory: &Directory,
        ours: bool,
        block_size: BlockSize,
        seed: &[u8; 16],
    ) -> Self {
        let names = directory.entries.iter().map(|entry| tree.name(entry.name));
        let names = names.chain(ours.then_some(LOST_AND_FOUND_NAME));
        let mut sorted: Vec<(u32, u32, u32, u16)> = (0u32..)
            .zip(names)
            .map(|(place, name)| {
                let (hash, minor) = htree::hash(name, seed);
                // A record has at most 264 bytes.
                (hash, minor, place, record_size(name.len()) as u16)
            })
            .collect();
        sorted.sort_unstable();

        let mut leaves: Vec<Leaf> = Vec::new();
        let mut left = 0;
        let mut before = None;
        for (start, &(hash, _, _, size)) in (0u32..).zip(&sorted) {
            let size = usize::from(size);
            if size > left {
                let continued = u32::from(before == Some(hash));
                leaves.push(Leaf {
                    start,
                    hash: hash | continued,
                });
                left = room(block_size);
            }
            left -= size;
            before = Some(hash);
        }
        Self {
            order: sorted.into_iter().map(|(_, _, place, _)| place).collect(),
            block_size,
            levels: levels(leaves.len(), block_size),
            leaves: leaves.into(),
        }
    }

    fn nodes(&self) -> usize {
        self.levels.iter().sum()
    }

    fn blocks(&self) -> u32 {
        // Fewer than 2^32 entries, and a node has many blocks below it.
        (1 + self.nodes() + self.leaves.len()) as u32
    }

    /// Levels between root and leaves (`indirect_levels`).
    pub(crate) fn depth(&self) -> u8 {
        self.levels.len() as u8
    }

    /// What the root points at.
    pub(crate) fn root(&self) -> impl ExactSizeIterator<Item = DxEntry> + '_ {
        let count = self.levels.first().copied().unwrap_or(self.leaves.len());
        self.pointers(0, 0..count)
    }

    /// What the node in block `block` points at.
    pub(crate) fn node(&self, block: u32) -> impl ExactSizeIterator<Item = DxEntry> + '_ {
        let mut node = block as usize - 1;
        let mut level = 0;
        while node >= self.levels[level] {
            node -= self.levels[level];
            level += 1;
        }
        let below = self
            .levels
            .get(level + 1)
            .copied()
            .unwrap_or(self.leaves.len());
        let limit = node_limit(self.block_size);
        let start = node * limit;
        self.pointers(level + 1, start..below.min(start + limit))
    }

    /// Entries for the blocks `range` of a level, counted from the root down
    /// with the leaves last.
    fn pointers(
        &self,
        level: usize,
        range: Range<usize>,
    ) -> impl ExactSizeIterator<Item = DxEntry> + '_ {
        let first_block = 1 + self.levels[..level].iter().sum::<usize>();
        let below = self.levels.len() - level;
        let leaves_each = node_limit(self.block_size).pow(below as u32);
        range.map(move |index| DxEntry {
            hash: self.leaves[index * leaves_each].hash,
            block: (first_block + index) as u32,
        })
    }

    /// The entries of a leaf.
    pub(crate) fn leaf(&self, leaf: u32, entries: usize) -> impl Iterator<Item = Listed> + '_ {
        let at = |leaf: usize| {
            self.leaves
                .get(leaf)
                .map_or(self.order.len(), |l| l.start as usize)
        };
        let range = at(leaf as usize)..at(leaf as usize + 1);
        self.order[range]
            .iter()
            .map(move |&place| match place as usize {
                place if place < entries => Listed::Entry(place),
                _ => Listed::LostAndFound,
            })
    }
}

/// Nodes of each level between the root and so many leaves, from the root down.
fn levels(leaves: usize, block_size: BlockSize) -> Vec<usize> {
    let mut levels = Vec::new();
    let mut blocks = leaves;
    while blocks > root_limit(block_size) {
        blocks = blocks.div_ceil(node_limit(block_size));
        levels.push(blocks);
    }
    levels.reverse();
    levels
}

/// Blocks that are kept for a directory of `names` names with `bytes` bytes in
/// all, however they fall into blocks: an upper bound that depends on nothing
/// else, so that the versions of a directory in two images of the same base
/// take the same room.
pub(crate) fn reserved_blocks(names: u32, bytes: u32, block_size: BlockSize) -> u64 {
    let room = room(block_size);
    let records = u64::from(names) * 11 + u64::from(bytes) + DOTS as u64;
    if records <= room as u64 {
        return 1;
    }
    // A leaf is left when the next record does not fit: at most 264 bytes.
    let leaves = records.div_ceil((room - record_size(255)) as u64);
    let nodes: usize = levels(leaves as usize, block_size).into_iter().sum();
    1 + nodes as u64 + leaves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_grows_a_level_when_its_root_is_full() {
        for bytes in [1024, 2048, 4096] {
            let block_size = BlockSize::new(bytes).unwrap();
            let (root, node) = (root_limit(block_size), node_limit(block_size));
            let levels = |leaves| levels(leaves, block_size);
            assert!(levels(2).is_empty());
            assert!(levels(root).is_empty());
            assert_eq!(levels(root + 1), [1]);
            assert_eq!(levels(node + 1), [2]);
            assert_eq!(levels(root * node), [root]);
            assert_eq!(levels(root * node + 1), [1, root + 1]);
        }
    }

    #[test]
    fn each_leaf_is_pointed_at_once() {
        for leaves in [2, 507, 508, 600, 507 * 510 + 3] {
            let hashed = Hashed {
                order: Box::default(),
                leaves: (0..leaves)
                    .map(|n| Leaf {
                        start: n,
                        hash: n * 2,
                    })
                    .collect(),
                block_size: BlockSize::PAGE,
                levels: levels(leaves as usize, BlockSize::PAGE),
            };
            let nodes = hashed.nodes() as u32;
            let mut pointed: Vec<DxEntry> = hashed.root().collect();
            for block in 1..=nodes {
                pointed.extend(hashed.node(block));
            }
            let blocks: Vec<u32> = pointed.iter().map(|entry| entry.block).collect();
            assert_eq!(blocks, (1..=nodes + leaves).collect::<Vec<_>>());
            let last = pointed.split_off(nodes as usize);
            assert!(last.iter().zip(0..).all(|(entry, n)| entry.hash == n * 2));
        }
    }
}
