//! Places the content of a tree for one geometry.

use super::allocate::Allocator;
use super::attributes::Attributes;
use super::directories::{reserved_blocks, Directories};
use super::extents::Shape;
use super::geometry::{Geometry, Spacing};
use super::run::{Run, What};
use crate::ext4::format::inode::FAST_SYMLINK_MAX;
use crate::ext4::format::xattr::ValueId;
use crate::ext4::format::BlockSize;
use crate::tree::{Content, Kind, NodeId, Slot, Tree};

/// Blocks of `lost+found`, as mke2fs makes it: room for e2fsck to link lost
/// files without allocating. 16 KiB, but no more than an inode without extents
/// maps directly (`EXT2_NDIR_BLOCKS`).
const fn lost_and_found_blocks(block_size: BlockSize) -> u64 {
    match block_size.blocks_of(16 << 10) {
        blocks @ 0..12 => blocks,
        _ => 12,
    }
}

/// Where everything but the file system's own blocks lies.
#[derive(Debug)]
pub(crate) struct Layout {
    /// All runs, ascending.
    pub(crate) runs: Vec<Run>,
    /// For each node the index of its first run; `u32::MAX` when it has none.
    pub(crate) first_run: Vec<u32>,
    /// Blocks in the runs.
    pub(crate) used: u64,
    /// The block behind the last one.
    pub(crate) end: u64,
    /// Extents of the journal: index of its first run.
    pub(crate) journal_run: u32,
    /// Index of the first run with an attribute's value.
    pub(crate) first_value_run: u32,
    /// The double indirect block of the resize inode, or 0.
    pub(crate) resize_block: u64,
}

impl Layout {
    /// The runs of our `lost+found`, which lie behind the resize block.
    #[must_use]
    pub(crate) fn lost_and_found_runs(&self) -> &[Run] {
        let first = self
            .runs
            .partition_point(|run| run.start <= self.resize_block);
        let rest = &self.runs[first..];
        let count = rest
            .iter()
            .take_while(|run| run.what == What::LostAndFound)
            .count();
        &rest[..count]
    }
}

impl Layout {
    /// The runs of an attribute's value. They lie in the order of their ids.
    #[must_use]
    pub(crate) fn value_runs(&self, value: ValueId) -> &[Run] {
        let runs = &self.runs[self.first_value_run as usize..self.journal_run as usize];
        let first = runs.partition_point(|run| run.owner < value.0);
        let count = runs[first..]
            .iter()
            .take_while(|run| run.owner == value.0)
            .count();
        &runs[first..first + count]
    }
}

/// What a layout is made from.
#[derive(Debug)]
pub(crate) struct Layouter<'t> {
    /// The tree.
    pub(crate) tree: &'t Tree,
    /// Its directories, divided into blocks.
    pub(crate) directories: &'t Directories,
    /// Whether there is a `lost+found` of our making.
    pub(crate) lost_and_found: bool,
    /// Whether descriptor blocks are reserved.
    pub(crate) resize: bool,
}

impl Layouter<'_> {
    /// Places everything for `geometry`, with a journal of `journal` blocks.
    pub(crate) fn layout(
        &self,
        geometry: &Geometry,
        spacing: Spacing,
        journal: u32,
        attributes: &mut Attributes,
    ) -> Layout {
        attributes.reset();
        let tree = self.tree;
        let block_size = geometry.block_size();
        let mut work = Work {
            tree,
            block_size,
            spacing,
            allocator: Allocator::new(geometry),
            first_run: vec![u32::MAX; tree.len()],
            attributes,
        };
        work.allocator
            .take(What::Resize, 0, 0, u64::from(self.resize));
        if self.lost_and_found {
            work.allocator
                .take(What::LostAndFound, 0, 0, lost_and_found_blocks(block_size));
        }
        let mut sparse = Vec::new();
        for (index, slot) in (0u32..).zip(tree.slots()) {
            match *slot {
                Slot::Node(node) => work.place_node(node, &mut sparse),
                Slot::Directory { node, names, bytes } => {
                    let blocks = self.directories.blocks(node);
                    let reserved = reserved_blocks(names, bytes, block_size);
                    work.place_directory(node, index, blocks, reserved);
                }
                Slot::Ghost { size, .. } => work.skip(block_size.blocks_of(size)),
                Slot::GhostDirectory { names, bytes, .. } => {
                    work.skip(reserved_blocks(names, bytes, block_size));
                }
            }
        }
        // Files with holes come behind all others: what is data in them hangs
        // on the host's file system, and must not shift what lies behind.
        for node in sparse {
            work.place_file(node);
        }
        let first_value_run = work.allocator.run_count();
        for (id, value) in (0u32..).zip(work.attributes.values()) {
            work.allocator.take(
                What::Value,
                id,
                0,
                block_size.blocks_of(value.bytes.len() as u64),
            );
        }
        let journal_run = work.allocator.run_count();
        let pieces = work.allocator.take(What::Journal, 0, 0, u64::from(journal));
        let tree_blocks = Shape::new(pieces as usize, block_size).blocks() as u64;
        work.allocator.take(What::JournalTree, 0, 0, tree_blocks);
        let first_run = work.first_run;
        let end = work.allocator.end();
        let runs = work.allocator.finish();
        Layout {
            resize_block: if self.resize { runs[0].start } else { 0 },
            // Fewer than 2^32 runs: there are fewer than 2^32 inodes and blocks.
            journal_run: journal_run as u32,
            first_value_run: first_value_run as u32,
            used: runs.iter().map(|run| u64::from(run.len)).sum(),
            runs,
            first_run,
            end,
        }
    }
}

struct Work<'a> {
    tree: &'a Tree,
    block_size: BlockSize,
    spacing: Spacing,
    allocator: Allocator<'a>,
    first_run: Vec<u32>,
    attributes: &'a mut Attributes,
}

impl Work<'_> {
    fn skip(&mut self, blocks: u64) {
        if self.spacing == Spacing::Stable {
            self.allocator.skip(blocks);
        }
    }

    fn place_node(&mut self, node: NodeId, sparse: &mut Vec<NodeId>) {
        let tree = self.tree;
        let inode = tree.node(node);
        if inode.links == 0 {
            // Replaced by an injected file: its place stays free.
            if let Kind::File { size, .. } = inode.kind {
                self.skip(self.block_size.blocks_of(size));
            }
            return;
        }
        self.place_xattrs(node);
        match inode.kind {
            Kind::File { content, .. } => match tree.content(content) {
                Content::Layer { data: Some(_), .. } => sparse.push(node),
                _ => self.place_file(node),
            },
            Kind::Symlink(target) if target.len() > FAST_SYMLINK_MAX => {
                self.begin(node);
                self.allocator.take(What::Symlink, owner(node), 0, 1);
            }
            _ => {}
        }
    }

    fn place_directory(&mut self, node: NodeId, slot: u32, blocks: u32, reserved: u64) {
        let last = self
            .tree
            .directory(node)
            .is_some_and(|dir| dir.last_slot == slot);
        let visible = node == self.tree.root() || self.tree.node(node).links > 0;
        if !last || !visible {
            self.skip(reserved);
            return;
        }
        self.place_xattrs(node);
        self.begin(node);
        let pieces = self
            .allocator
            .take(What::Directory, owner(node), 0, u64::from(blocks));
        self.place_extent_tree(node, pieces);
        self.skip(reserved.saturating_sub(u64::from(blocks)));
    }

    fn place_xattrs(&mut self, node: NodeId) {
        let set = self.tree.node(node).metadata.xattrs;
        if let Some(index) = self.attributes.claim(node, set) {
            let run = self.allocator.run_count();
            self.allocator.take(What::Xattrs, index, 0, 1);
            self.attributes.place(index, self.allocator.start_of(run));
        }
    }

    fn place_file(&mut self, node: NodeId) {
        let Kind::File { size, content } = self.tree.node(node).kind else {
            return;
        };
        if size == 0 {
            return;
        }
        self.begin(node);
        let mut pieces = 0;
        match self.tree.content(content) {
            Content::Layer {
                data: Some(map), ..
            } => {
                for (first, count) in block_ranges(map, self.block_size) {
                    pieces += self.allocator.take(What::Data, owner(node), first, count);
                }
            }
            _ => {
                let blocks = self.block_size.blocks_of(size);
                pieces = self.allocator.take(What::Data, owner(node), 0, blocks);
            }
        }
        self.place_extent_tree(node, pieces);
    }

    fn place_extent_tree(&mut self, node: NodeId, pieces: u32) {
        let blocks = Shape::new(pieces as usize, self.block_size).blocks() as u64;
        self.allocator
            .take(What::ExtentTree, owner(node), 0, blocks);
    }

    fn begin(&mut self, node: NodeId) {
        self.first_run[node.index()] = self.allocator.run_count() as u32;
    }
}

fn owner(node: NodeId) -> u32 {
    node.index() as u32
}

/// The blocks that data touches, (first, count), merged where parts of the map
/// share a block or touch.
fn block_ranges(map: &[crate::tree::Extent], block_size: BlockSize) -> Vec<(u32, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(map.len());
    for part in map {
        let first = part.start >> block_size.bits();
        let end = block_size.blocks_of(part.start + part.len);
        match ranges.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => ranges.push((first, end)),
        }
    }
    // Files end at 2^32 blocks: checked before anything is placed.
    ranges
        .into_iter()
        .map(|(first, end)| (first as u32, end - first))
        .collect()
}
