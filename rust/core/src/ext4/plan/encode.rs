//! The bytes of every region that is not a file's data.

use super::directories::{Block, Listed, LOST_AND_FOUND_NAME};
use super::extents::Shape;
use super::groups::own_blocks;
use super::numbers::LOST_AND_FOUND;
use super::regions::{Region, RegionKind};
use super::run::{Run, What};
use super::{superblock_time, Plan};
use crate::ext4::format::checksum::Checksum;
use crate::ext4::format::dirent::{file_type, BlockWriter, DIRECTORY};
use crate::ext4::format::extent::{self, Extent, Index};
use crate::ext4::format::superblock::{Superblock, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use crate::ext4::format::{htree, journal, put_u32, xattr, BlockSize};
use crate::ext4::format::{JOURNAL_INODE, RESIZE_INODE, ROOT_INODE};
use crate::tree::{Directory, Kind, NodeId};

impl Plan<'_> {
    /// Writes the bytes of `region`, which is not a file's data, into `out`,
    /// which is as long as the region.
    pub fn encode(&self, region: &Region, out: &mut [u8]) {
        out.fill(0);
        match region.kind {
            RegionKind::Superblock { group } => {
                // In the smallest blocks it is block 1 by itself.
                let at = if group == 0 && self.block_size.first_block() == 0 {
                    SUPERBLOCK_OFFSET as usize
                } else {
                    0
                };
                out[at..at + SUPERBLOCK_SIZE].copy_from_slice(&self.superblock().encode(group));
            }
            RegionKind::Descriptors { first } => self.encode_descriptors(first, out),
            RegionKind::ReservedDescriptors { first } => self.encode_reserved(first, out),
            RegionKind::BlockBitmap { group } => self.fill_block_bitmap(group, out),
            RegionKind::InodeBitmap { group } => self.fill_inode_bitmap(group, out),
            RegionKind::InodeTable { group, first } => self.encode_table(group, first, out),
            RegionKind::Run { index, skip } => {
                self.encode_run(&self.layout.runs[index as usize], skip, out);
            }
        }
    }

    fn superblock(&self) -> Superblock {
        let geometry = &self.geometry;
        Superblock {
            block_size: self.block_size,
            inodes: self.inode_count(),
            blocks: geometry.blocks,
            reserved_blocks: self.reserved_blocks,
            free_blocks: self.free_blocks(),
            free_inodes: self.free_inodes(),
            overhead_blocks: u64::from(self.block_size.first_block())
                + geometry.own_blocks()
                + u64::from(self.journal),
            inodes_per_group: geometry.inodes_per_group,
            // At most 1,024.
            reserved_gdt_blocks: geometry.reserved_descriptor_blocks as u16,
            uuid: self.uuid,
            hash_seed: self.hash_seed,
            label: self.label,
            mkfs_time: superblock_time(self.time.seconds),
            write_time: self.write_time,
            features: self.features,
            journal: (self.journal > 0).then(|| {
                (
                    self.journal_map(),
                    self.block_size.bytes_of(u64::from(self.journal)),
                )
            }),
        }
    }

    fn encode_descriptors(&self, first: u32, out: &mut [u8]) {
        let size = self.features.descriptor_size();
        let groups = first * (self.block_size.bytes() / size)..self.geometry.groups;
        for (slot, group) in out.chunks_exact_mut(size as usize).zip(groups) {
            let descriptor = self.groups.descriptor(&self.geometry, group);
            descriptor.encode(group, self.seed, &self.uuid, slot);
        }
    }

    /// Each reserved block lists where its backups lie
    /// (`ext2fs_create_resize_inode`).
    fn encode_reserved(&self, first: u32, out: &mut [u8]) {
        let behind_superblock = 1 + self.geometry.descriptor_blocks + first;
        for (block, within) in out
            .chunks_exact_mut(self.block_size.size())
            .zip(behind_superblock..)
        {
            for (slot, group) in block.chunks_exact_mut(4).zip(self.geometry.backup_groups()) {
                let backup = self.geometry.group_start(group) + u64::from(within);
                // The resize inode has no extents: 32 bits, as in mke2fs.
                put_u32(slot, 0, backup as u32);
            }
        }
    }

    /// The block bitmap of a group; `out` is one block.
    pub(super) fn fill_block_bitmap(&self, group: u32, out: &mut [u8]) {
        out.fill(0);
        let mut set = |range: std::ops::Range<u64>| {
            for (other, bits) in self.geometry.per_group(&range) {
                if other == group {
                    set_bits(out, bits);
                }
            }
        };
        let flex = self.geometry.flex_start(group);
        let flex_end = (flex + self.block_size.groups_per_flex()).min(self.geometry.groups);
        for other in flex..flex_end {
            own_blocks(&self.geometry, other)
                .into_iter()
                .for_each(&mut set);
        }
        let start = self.geometry.group_start(group);
        let per_group = self.block_size.blocks_per_group();
        let end = start + u64::from(per_group);
        let runs = &self.layout.runs;
        let first = runs.partition_point(|run| run.end() <= start);
        for run in runs[first..].iter().take_while(|run| run.start < end) {
            set(run.start..run.end());
        }
        set_bits(out, self.geometry.group_blocks(group)..per_group);
    }

    /// The inode bitmap of a group; `out` is one block.
    pub(super) fn fill_inode_bitmap(&self, group: u32, out: &mut [u8]) {
        out.fill(0);
        let per = self.geometry.inodes_per_group;
        let last = self.numbers.highest();
        for (bit, number) in (0..per).zip(group * per + 1..=last) {
            if self.is_used(number) {
                set_bits(out, bit..bit + 1);
            }
        }
        // e2fsck wants the bits behind the last inode set.
        set_bits(out, per..self.block_size.bytes() * 8);
    }

    fn is_used(&self, number: u32) -> bool {
        number < LOST_AND_FOUND
            || (number == LOST_AND_FOUND && self.lost_and_found)
            || self.numbers.node(number).is_some()
            || self.numbers.value(number).is_some()
    }

    fn encode_run(&self, run: &Run, skip: u32, out: &mut [u8]) {
        let first = run.logical + skip;
        let blocks = out.chunks_exact_mut(self.block_size.size()).zip(first..);
        let node = NodeId::new(run.owner);
        match run.what {
            What::Data => unreachable!("a file's data is not encoded"),
            What::Symlink => {
                if let Kind::Symlink(target) = self.tree.node(node).kind {
                    out[..target.len()].copy_from_slice(self.tree.name(target));
                }
            }
            What::Directory => {
                blocks.for_each(|(block, index)| self.encode_directory(node, index, block));
            }
            What::ExtentTree => {
                let (extents, tree) = self.extents_of(node);
                let seed = self.inode_seed(self.numbers.of(node));
                for (block, index) in blocks {
                    encode_tree_node(extents, tree, self.block_size, index as usize, seed, block);
                }
            }
            What::Xattrs => {
                let (block, entries) = self.attributes.block(run.owner);
                xattr::encode_block(
                    out,
                    entries,
                    block.references,
                    block.block,
                    self.seed,
                    |value| self.value_place(value),
                );
            }
            What::Value => {
                let value = &self.attributes.values()[run.owner as usize].bytes;
                let rest = &value[first as usize * self.block_size.size()..];
                let len = rest.len().min(out.len());
                out[..len].copy_from_slice(&rest[..len]);
            }
            What::LostAndFound => {
                let seed = self.inode_seed(LOST_AND_FOUND);
                for (block, index) in blocks {
                    let mut writer = BlockWriter::new(block);
                    if index == 0 {
                        writer.push(LOST_AND_FOUND, b".", DIRECTORY);
                        writer.push(ROOT_INODE, b"..", DIRECTORY);
                    }
                    writer.finish(seed);
                }
            }
            What::Resize => self.encode_resize(out),
            What::Journal => {
                let raw =
                    journal::encode_superblock(self.journal, self.block_size.bytes(), &self.uuid);
                out[..raw.len()].copy_from_slice(&raw);
            }
            What::JournalTree => {
                let (extents, tree) = self.journal_runs();
                let seed = self.inode_seed(JOURNAL_INODE);
                for (block, index) in blocks {
                    encode_tree_node(extents, tree, self.block_size, index as usize, seed, block);
                }
            }
        }
    }

    fn encode_directory(&self, node: NodeId, block: u32, out: &mut [u8]) {
        // OK to unwrap: only directories have such runs.
        let directory = self.tree.directory(node).expect("a directory");
        let number = self.numbers.of(node);
        let parent = self.numbers.of(directory.parent);
        let seed = self.inode_seed(number);
        match self.directories.block(node, block) {
            Block::Root(hashed) => {
                htree::encode_root(out, number, parent, hashed.depth(), hashed.root(), seed);
            }
            Block::Node(hashed, block) => htree::encode_node(out, hashed.node(block), seed),
            Block::Leaf(hashed, leaf) => {
                let mut writer = BlockWriter::new(out);
                let listed = hashed.leaf(leaf, directory.entries.len());
                self.push_records(&mut writer, directory, listed);
                writer.finish(seed);
            }
            Block::Only => {
                let mut writer = BlockWriter::new(out);
                writer.push(number, b".", DIRECTORY);
                writer.push(parent, b"..", DIRECTORY);
                let listed = self.directories.all(node, directory);
                self.push_records(&mut writer, directory, listed);
                writer.finish(seed);
            }
        }
    }

    fn push_records(
        &self,
        writer: &mut BlockWriter<'_>,
        directory: &Directory,
        listed: impl Iterator<Item = Listed>,
    ) {
        for one in listed {
            match one {
                Listed::Entry(index) => {
                    let entry = &directory.entries[index];
                    let kind = &self.tree.node(entry.node).kind;
                    let name = self.tree.name(entry.name);
                    writer.push(self.numbers.of(entry.node), name, file_type(kind));
                }
                Listed::LostAndFound => {
                    writer.push(LOST_AND_FOUND, LOST_AND_FOUND_NAME, DIRECTORY);
                }
            }
        }
    }

    /// The double indirect block of the resize inode: slot n holds the n-th
    /// descriptor block behind the superblock.
    fn encode_resize(&self, out: &mut [u8]) {
        let geometry = &self.geometry;
        let used = geometry.descriptor_blocks;
        for block in used..used + geometry.reserved_descriptor_blocks {
            let slot = block % self.block_size.pointers();
            let at = self.block_size.first_block() + 1 + block;
            put_u32(out, slot as usize * 4, at);
        }
    }

    pub(super) fn inode_seed(&self, number: u32) -> Checksum {
        self.seed.for_inode(number, 0)
    }

    /// The runs with a node's content, and those with its extent tree.
    pub(super) fn extents_of(&self, node: NodeId) -> (&[Run], &[Run]) {
        let runs = self.runs_of(node);
        let extents = runs.partition_point(|run| run.what != What::ExtentTree);
        runs.split_at(extents)
    }

    pub(super) fn journal_runs(&self) -> (&[Run], &[Run]) {
        let runs = &self.layout.runs[self.layout.journal_run as usize..];
        let extents = runs
            .iter()
            .take_while(|run| run.what == What::Journal)
            .count();
        runs.split_at(extents)
    }

    pub(super) fn journal_map(&self) -> [u8; 60] {
        let (extents, tree) = self.journal_runs();
        encode_tree_root(extents, tree, self.block_size)
    }

    fn encode_table(&self, group: u32, first: u32, out: &mut [u8]) {
        let per_block = self.block_size.inodes_per_block();
        let number = group * self.geometry.inodes_per_group + first * per_block + 1;
        let size = crate::ext4::format::INODE_SIZE as usize;
        for (slot, number) in out.chunks_exact_mut(size).zip(number..) {
            let inode = match number {
                RESIZE_INODE if self.layout.resize_block > 0 => Some(self.resize_inode()),
                JOURNAL_INODE if self.journal > 0 => Some(self.journal_inode()),
                LOST_AND_FOUND if self.lost_and_found => Some(self.lost_and_found_inode()),
                _ => match self.numbers.value(number) {
                    Some(value) => Some(self.value_inode(value)),
                    None => self.numbers.node(number).map(|node| self.inode(node)),
                },
            };
            if let Some(inode) = inode {
                slot.copy_from_slice(&inode.encode(number, self.block_size, self.seed));
            }
        }
    }
}

fn to_extent(run: &Run) -> Extent {
    Extent {
        logical: run.logical,
        len: run.len,
        start: run.start,
    }
}

/// The block of a tree's node; nodes lie in `tree` in their order.
fn node_block(tree: &[Run], node: usize) -> u64 {
    let at = tree.partition_point(|run| (run.logical + run.len) as usize <= node);
    let run = &tree[at];
    run.start + (node - run.logical as usize) as u64
}

fn index_records<'a>(
    shape: &'a Shape,
    extents: &'a [Run],
    tree: &'a [Run],
    nodes: std::ops::Range<usize>,
) -> impl ExactSizeIterator<Item = Index> + 'a {
    nodes.map(move |node| Index {
        logical: extents[shape.first_extent(node)].logical,
        block: node_block(tree, node),
    })
}

/// `i_block` of an inode with these extents.
pub(super) fn encode_tree_root(extents: &[Run], tree: &[Run], block_size: BlockSize) -> [u8; 60] {
    let shape = Shape::new(extents.len(), block_size);
    if shape.depth() == 0 {
        return extent::encode_root_leaf(extents.iter().map(to_extent));
    }
    let records = index_records(&shape, extents, tree, shape.root());
    extent::encode_root_index(records, shape.depth())
}

fn encode_tree_node(
    extents: &[Run],
    tree: &[Run],
    block_size: BlockSize,
    node: usize,
    seed: Checksum,
    out: &mut [u8],
) {
    let shape = Shape::new(extents.len(), block_size);
    let (height, range) = shape.node(node);
    if height == 0 {
        extent::encode_leaf_block(out, extents[range].iter().map(to_extent), seed);
    } else {
        let records = index_records(&shape, extents, tree, range);
        extent::encode_index_block(out, records, height, seed);
    }
}

/// Sets bits in a bitmap, whole bytes at once.
fn set_bits(bitmap: &mut [u8], bits: std::ops::Range<u32>) {
    let (start, end) = (bits.start as usize, bits.end as usize);
    let (first, last) = (start.div_ceil(8), end / 8);
    if first > last {
        (start..end).for_each(|bit| bitmap[bit / 8] |= 1 << (bit % 8));
        return;
    }
    (start..first * 8).for_each(|bit| bitmap[bit / 8] |= 1 << (bit % 8));
    bitmap[first..last].fill(0xff);
    (last * 8..end).for_each(|bit| bitmap[bit / 8] |= 1 << (bit % 8));
}

#[cfg(test)]
mod tests {
    use super::set_bits;

    #[test]
    fn sets_each_bit_and_no_other() {
        for start in 0..20u32 {
            for end in start..=24 {
                let mut bitmap = [0u8; 3];
                set_bits(&mut bitmap, start..end);
                for bit in 0..24u32 {
                    let is = bitmap[bit as usize / 8] >> (bit % 8) & 1 == 1;
                    assert_eq!(is, (start..end).contains(&bit), "{start}..{end}: {bit}");
                }
            }
        }
    }
}
