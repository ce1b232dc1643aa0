//! What is known of every inode that is in use.

use std::collections::HashMap;

use crate::ext4::read::inode::Kind;

/// Inodes of a chunk.
const CHUNK: u32 = 256;

/// What the first pass learns of an inode, and what the second counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// `None` for an inode that is in use but of no valid type.
    pub(super) kind: Option<Kind>,
    /// Whether it is in use: it has links, or is one of the reserved.
    pub(super) used: bool,
    /// `i_links_count`
    pub(super) links: u16,
    /// Names that were found for it.
    pub(super) names: u32,
    /// It holds a value of an attribute.
    pub(super) holds_value: bool,
    /// Its directory has an index.
    pub(super) indexed: bool,
}

/// Entries by inode number, in chunks where there are any.
#[derive(Default)]
pub(super) struct Table {
    chunks: HashMap<u32, Box<[Entry; CHUNK as usize]>>,
}

impl Table {
    pub(super) fn get(&self, number: u32) -> Entry {
        let chunk = self.chunks.get(&(number / CHUNK));
        chunk.map_or_else(Entry::default, |chunk| chunk[(number % CHUNK) as usize])
    }

    pub(super) fn entry(&mut self, number: u32) -> &mut Entry {
        let chunk = self
            .chunks
            .entry(number / CHUNK)
            .or_insert_with(|| Box::new([Entry::default(); CHUNK as usize]));
        &mut chunk[(number % CHUNK) as usize]
    }

    /// Numbers of chunks, ascending.
    pub(super) fn chunks(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.chunks.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Numbers of a chunk's inodes.
    pub(super) fn numbers(chunk: u32) -> impl Iterator<Item = u32> {
        let first = chunk * CHUNK;
        (0..CHUNK).map(move |index| first + index)
    }
}
