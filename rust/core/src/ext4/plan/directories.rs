//! How a directory's entries are divided into blocks.

use std::collections::HashMap;

use crate::ext4::format::dirent::{record_size, ROOM};
use crate::tree::{NodeId, Tree};

/// The directory that e2fsck links lost files into.
pub(crate) const LOST_AND_FOUND_NAME: &[u8] = b"lost+found";

/// Blocks of every directory, and where the blocks of the larger ones begin.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    /// For directories of more than one block: for each block the index of its
    /// first entry.
    breaks: HashMap<NodeId, Box<[u32]>>,
}

impl Directories {
    /// Divides the entries of all directories of `tree`. In the first block
    /// "." and ".." come first and, in the root when it is ours to make,
    /// `lost+found`.
    #[must_use]
    pub(crate) fn new(tree: &Tree, lost_and_found: bool) -> Self {
        let mut breaks = HashMap::new();
        for (id, node) in tree.nodes() {
            if node.links == 0 && id != tree.root() {
                continue;
            }
            let Some(directory) = tree.directory(id) else {
                continue;
            };
            let mut starts = vec![0u32];
            let mut room = ROOM - record_size(1) - record_size(2);
            if lost_and_found && id == tree.root() {
                room -= record_size(LOST_AND_FOUND_NAME.len());
            }
            for (index, entry) in (0u32..).zip(&directory.entries) {
                let size = record_size(entry.name.len());
                if size > room {
                    starts.push(index);
                    room = ROOM;
                }
                room -= size;
            }
            if starts.len() > 1 {
                breaks.insert(id, starts.into());
            }
        }
        Self { breaks }
    }

    /// How many blocks the directory has.
    #[must_use]
    pub(crate) fn blocks(&self, directory: NodeId) -> u32 {
        self.breaks
            .get(&directory)
            .map_or(1, |starts| starts.len() as u32)
    }

    /// The entries in block `block` of a directory with `entries` entries.
    #[must_use]
    pub(crate) fn range(
        &self,
        directory: NodeId,
        block: u32,
        entries: usize,
    ) -> std::ops::Range<usize> {
        let Some(starts) = self.breaks.get(&directory) else {
            return 0..entries;
        };
        let at = |block: u32| {
            starts
                .get(block as usize)
                .map_or(entries, |&start| start as usize)
        };
        at(block)..at(block + 1)
    }
}

/// Blocks that are kept for a directory of `names` names with `bytes` bytes in
/// all, however they fall into blocks: an upper bound that depends on nothing
/// else, so that the versions of a directory in two images of the same base
/// take the same room.
#[must_use]
pub(crate) fn reserved_blocks(names: u32, bytes: u32) -> u64 {
    let records = u64::from(names) * 11 + u64::from(bytes) + 24;
    if records <= ROOM as u64 {
        return 1;
    }
    // A block is left when the next record does not fit: at most 264 bytes.
    records.div_ceil((ROOM - record_size(255)) as u64)
}
