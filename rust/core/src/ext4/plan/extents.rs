//! The shape of an extent tree: how many nodes it has on each level, and which
//! records each of them holds. It follows from the number of extents alone.

use std::ops::Range;

use crate::ext4::format::extent::{block_records, INLINE_RECORDS};
use crate::ext4::format::BlockSize;

/// The shape of a tree over so many extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Nodes of each level but the root, leaves first.
    levels: Vec<usize>,
    extents: usize,
    /// Records in a block.
    records: usize,
}

impl Shape {
    /// The least tree that holds `extents` extents.
    #[must_use]
    pub(crate) fn new(extents: usize, block_size: BlockSize) -> Self {
        let each = block_records(block_size);
        let mut levels = Vec::new();
        let mut records = extents;
        while records > INLINE_RECORDS {
            records = records.div_ceil(each);
            levels.push(records);
        }
        Self {
            levels,
            extents,
            records: each,
        }
    }

    /// Blocks of the tree without the root, which lies in the inode.
    #[must_use]
    pub(crate) fn blocks(&self) -> usize {
        self.levels.iter().sum()
    }

    /// Levels below the root.
    #[must_use]
    pub(crate) fn depth(&self) -> u16 {
        // Five levels hold 2^32 extents in the smallest blocks.
        self.levels.len() as u16
    }

    /// The nodes that the root points at, counted over all levels. Empty when
    /// the root holds the extents.
    #[must_use]
    pub(crate) fn root(&self) -> Range<usize> {
        let all = self.blocks();
        let top = self.levels.last().copied().unwrap_or(0);
        all - top..all
    }

    /// What node `node` (counted over all levels, leaves first) holds: its
    /// height above the leaves and, for a leaf, the extents, else the nodes.
    #[must_use]
    pub(crate) fn node(&self, node: usize) -> (u16, Range<usize>) {
        let mut first = 0; // of this level
        let mut below = 0; // first node of the level below
        for (height, &count) in (0u16..).zip(&self.levels) {
            if node < first + count {
                let records = if height == 0 {
                    self.extents
                } else {
                    first - below
                };
                let start = (node - first) * self.records;
                let end = (start + self.records).min(records);
                let base = if height == 0 { 0 } else { below };
                return (height, base + start..base + end);
            }
            below = first;
            first += count;
        }
        unreachable!("node {node} of a tree of {first} nodes")
    }

    /// The first extent below a node, which says where its range begins.
    #[must_use]
    pub(crate) fn first_extent(&self, node: usize) -> usize {
        let (height, range) = self.node(node);
        if height == 0 {
            range.start
        } else {
            self.first_extent(range.start)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_a_level_when_the_root_is_full() {
        assert_eq!(Shape::new(0, BlockSize::PAGE).depth(), 0);
        assert_eq!(Shape::new(4, BlockSize::PAGE).depth(), 0);
        assert_eq!(
            (
                Shape::new(5, BlockSize::PAGE).depth(),
                Shape::new(5, BlockSize::PAGE).blocks()
            ),
            (1, 1)
        );
        assert_eq!(
            (
                Shape::new(4 * 340, BlockSize::PAGE).depth(),
                Shape::new(4 * 340, BlockSize::PAGE).blocks()
            ),
            (1, 4)
        );
        let deep = Shape::new(4 * 340 + 1, BlockSize::PAGE);
        assert_eq!((deep.depth(), deep.blocks()), (2, 6));
        assert_eq!(deep.root(), 5..6);
        assert_eq!(deep.node(5), (1, 0..5));
        assert_eq!(deep.node(4), (0, 1360..1361));
        assert_eq!(deep.first_extent(5), 0);
    }

    #[test]
    fn every_record_has_one_place() {
        for extents in [5, 340, 341, 1361, 4 * 340 * 340 + 7] {
            let shape = Shape::new(extents, BlockSize::PAGE);
            let mut next_extent = 0;
            let mut next_node = 0;
            for node in 0..shape.blocks() {
                let (height, range) = shape.node(node);
                let next = if height == 0 {
                    &mut next_extent
                } else {
                    &mut next_node
                };
                assert_eq!(range.start, *next, "{extents}");
                *next = range.end;
            }
            assert_eq!(next_extent, extents);
            assert_eq!(next_node, shape.root().start);
        }
    }
}
