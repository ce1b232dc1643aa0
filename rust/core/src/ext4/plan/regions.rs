//! The image, told in ascending order.

use super::geometry::Geometry;
use super::run::{Run, What};
use super::Plan;
use crate::ext4::format::BlockSize;

/// What the blocks of a region hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// A superblock: the one at byte 1,024 for group 0, else a backup.
    Superblock {
        /// Group it lies in.
        group: u32,
    },
    /// Group descriptors.
    Descriptors {
        /// The first of these blocks, counted from the first descriptor block.
        first: u32,
    },
    /// Blocks reserved for descriptors, each a list of its backups.
    ReservedDescriptors {
        /// The first of these blocks, counted from the first reserved block.
        first: u32,
    },
    /// A block bitmap.
    BlockBitmap {
        /// Group it is of.
        group: u32,
    },
    /// An inode bitmap.
    InodeBitmap {
        /// Group it is of.
        group: u32,
    },
    /// A part of an inode table.
    InodeTable {
        /// Group it is of.
        group: u32,
        /// The first of these blocks, counted from the table's first.
        first: u32,
    },
    /// A part of a run of blocks that belong to some inode.
    Run {
        /// The run.
        index: u32,
        /// Blocks of it that come before.
        skip: u32,
    },
}

/// Blocks side by side. What no region tells are holes: they read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First block.
    pub start: u64,
    /// How many.
    pub blocks: u64,
    /// What they hold.
    pub kind: RegionKind,
    block_size: BlockSize,
}

impl Region {
    /// The block behind the last one.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.blocks
    }

    /// First byte in the image.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.block_size.bytes_of(self.start)
    }

    /// Length in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.block_size.bytes_of(self.blocks)
    }

    /// The first `blocks` blocks, and the rest if there is one.
    #[must_use]
    pub fn split(self, blocks: u64) -> (Self, Option<Self>) {
        if blocks >= self.blocks {
            return (self, None);
        }
        let more = |first: u32| first.saturating_add(u32::try_from(blocks).unwrap_or(u32::MAX));
        let kind = match self.kind {
            RegionKind::Descriptors { first } => RegionKind::Descriptors { first: more(first) },
            RegionKind::ReservedDescriptors { first } => {
                RegionKind::ReservedDescriptors { first: more(first) }
            }
            RegionKind::InodeTable { group, first } => RegionKind::InodeTable {
                group,
                first: more(first),
            },
            RegionKind::Run { index, skip } => RegionKind::Run {
                index,
                skip: more(skip),
            },
            one @ (RegionKind::Superblock { .. }
            | RegionKind::BlockBitmap { .. }
            | RegionKind::InodeBitmap { .. }) => one,
        };
        let head = Self { blocks, ..self };
        let tail = Self {
            start: self.start + blocks,
            blocks: self.blocks - blocks,
            kind,
            block_size: self.block_size,
        };
        (head, Some(tail))
    }
}

impl Plan<'_> {
    /// Everything in the image that is not a hole, in ascending order.
    #[must_use]
    pub fn regions(&self) -> Regions<'_> {
        Regions {
            block_size: self.block_size,
            own: &self.own,
            runs: &self.layout.runs,
            next_run: 0,
        }
    }

    /// The file system's own regions, ascending.
    pub(super) fn own_regions(&self) -> Vec<Region> {
        let geometry = &self.geometry;
        let mut regions = Vec::new();
        let mut add = |start: u64, blocks: u32, kind| {
            if blocks > 0 {
                regions.push(Region {
                    start,
                    blocks: u64::from(blocks),
                    kind,
                    block_size: self.block_size,
                });
            }
        };
        for group in 0..geometry.groups {
            if Geometry::has_superblock(group) {
                let start = geometry.group_start(group);
                add(start, 1, RegionKind::Superblock { group });
                let descriptors = geometry.descriptor_blocks;
                add(start + 1, descriptors, RegionKind::Descriptors { first: 0 });
                // Only the primary ones list something; without backups they
                // list nothing.
                if group == 0 && geometry.backup_groups().next().is_some() {
                    add(
                        start + 1 + u64::from(descriptors),
                        geometry.reserved_descriptor_blocks,
                        RegionKind::ReservedDescriptors { first: 0 },
                    );
                }
            }
            if self.groups.has_block_bitmap(group) {
                add(
                    geometry.block_bitmap(group),
                    1,
                    RegionKind::BlockBitmap { group },
                );
            }
            if self.groups.has_inode_bitmap(group) {
                add(
                    geometry.inode_bitmap(group),
                    1,
                    RegionKind::InodeBitmap { group },
                );
            }
            let used = self
                .groups
                .table_used(group)
                .div_ceil(self.block_size.inodes_per_block());
            add(
                geometry.inode_table(group),
                used,
                RegionKind::InodeTable { group, first: 0 },
            );
        }
        regions.sort_unstable_by_key(|region| region.start);
        regions
    }
}

/// See [`Plan::regions`].
#[derive(Clone, Debug)]
pub struct Regions<'a> {
    block_size: BlockSize,
    own: &'a [Region],
    runs: &'a [Run],
    next_run: u32,
}

impl Regions<'_> {
    /// The region of the next run that is written, without stepping over it.
    fn peek_run(&mut self) -> Option<Region> {
        loop {
            let run = self.runs.get(self.next_run as usize)?;
            let blocks = match run.what {
                What::Journal if run.logical > 0 => 0,
                What::Journal => 1,
                _ => run.len,
            };
            if blocks > 0 {
                let kind = RegionKind::Run {
                    index: self.next_run,
                    skip: 0,
                };
                return Some(Region {
                    start: run.start,
                    blocks: u64::from(blocks),
                    kind,
                    block_size: self.block_size,
                });
            }
            self.next_run += 1;
        }
    }
}

impl Iterator for Regions<'_> {
    type Item = Region;

    fn next(&mut self) -> Option<Region> {
        let run = self.peek_run();
        match (self.own.split_first(), run) {
            (Some((own, rest)), run) if run.is_none_or(|run| own.start < run.start) => {
                self.own = rest;
                Some(*own)
            }
            (_, Some(run)) => {
                self.next_run += 1;
                Some(run)
            }
            (None, None) => None,
            // OK: the guard of the first arm holds for every (Some, None).
            (Some(_), None) => unreachable!("no run is left, so the own region comes first"),
        }
    }
}
