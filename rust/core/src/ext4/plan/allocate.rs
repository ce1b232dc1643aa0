//! Gives out blocks in ascending order, around the file system's own.

use std::ops::Range;

use super::geometry::{Geometry, Reserved};
use super::run::{Run, What};
use crate::ext4::format::extent::MAX_EXTENT_BLOCKS;

/// Gives out blocks and keeps the runs. It only ever goes forward, so that
/// the runs are sorted and never overlap.
#[derive(Debug)]
pub(crate) struct Allocator<'a> {
    reserved: Reserved<'a>,
    /// The next range of reserved blocks at or behind `next`.
    ahead: Range<u64>,
    next: u64,
    runs: Vec<Run>,
}

impl<'a> Allocator<'a> {
    /// Begins at the first block of group 0.
    #[must_use]
    pub(crate) fn new(geometry: &'a Geometry) -> Self {
        let mut reserved = geometry.reserved();
        // OK to unwrap: the reserved ranges have no end.
        let ahead = reserved.next().expect("group 0 has a superblock");
        Self {
            reserved,
            ahead,
            next: geometry.group_start(0),
            runs: Vec::new(),
        }
    }

    /// Next piece of at most `want` blocks, and steps behind it.
    fn advance(&mut self, want: u64) -> (u64, u32) {
        while self.next >= self.ahead.start {
            self.next = self.next.max(self.ahead.end);
            self.ahead = self.reserved.next().unwrap_or(u64::MAX..u64::MAX);
        }
        let start = self.next;
        let len = want
            .min(self.ahead.start - start)
            .min(u64::from(MAX_EXTENT_BLOCKS));
        self.next += len;
        // At most MAX_EXTENT_BLOCKS.
        (start, len as u32)
    }

    /// Gives `blocks` blocks to `owner`, from its block `logical` on. Returns
    /// how many pieces they are.
    pub(crate) fn take(
        &mut self,
        what: What,
        owner: u32,
        mut logical: u32,
        mut blocks: u64,
    ) -> u32 {
        let mut pieces = 0;
        while blocks > 0 {
            let (start, len) = self.advance(blocks);
            self.runs.push(Run {
                start,
                logical,
                len,
                owner,
                what,
            });
            logical = logical.saturating_add(len);
            blocks -= u64::from(len);
            pieces += 1;
        }
        pieces
    }

    /// Passes over as many blocks as [`Self::take`] would have given out.
    pub(crate) fn skip(&mut self, mut blocks: u64) {
        while blocks > 0 {
            blocks -= u64::from(self.advance(blocks).1);
        }
    }

    /// The block behind the last one given out or passed over.
    #[must_use]
    pub(crate) fn end(&self) -> u64 {
        self.next
    }

    /// How many runs there are so far: the index of the next one.
    #[must_use]
    pub(crate) fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// First block of a run that was given out.
    #[must_use]
    pub(crate) fn start_of(&self, run: usize) -> u64 {
        self.runs[run].start
    }

    /// The runs.
    #[must_use]
    pub(crate) fn finish(self) -> Vec<Run> {
        self.runs
    }
}
