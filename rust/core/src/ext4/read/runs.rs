//! Where a file's data is, by extents or by the block map of ext2.

use std::ops::Range;

use super::bytes::u32_at;
use super::extent::{self, Header};
use super::filesystem::Filesystem;
use super::inode::{flags, Inode};
use super::{Fault, Read};

/// Blocks of a file that follow each other on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First block within the file.
    pub logical: u64,
    /// First block on the disk.
    pub physical: u64,
    /// Blocks.
    pub len: u64,
    /// Reads as zeros.
    pub unwritten: bool,
}

/// Blocks of a file system, as whoever has it open reads them.
pub trait Blocks {
    /// Bytes of a block.
    fn block_size(&self) -> u32;

    /// The blocks that there are, from the first data block on.
    fn all(&self) -> Range<u64>;

    /// A block's bytes.
    ///
    /// # Errors
    /// When the file system or the file ends before.
    fn block(&self, number: u64) -> Read<Vec<u8>>;
}

impl Blocks for Filesystem {
    fn block_size(&self) -> u32 {
        self.geometry.block_size
    }

    fn all(&self) -> Range<u64> {
        self.geometry.first_data_block.into()..self.geometry.blocks
    }

    fn block(&self, number: u64) -> Read<Vec<u8>> {
        Self::block(self, number)
    }
}

/// So many nodes without a block of the file below them are walked. No kernel
/// leaves any, but a few that lead to each other would keep a walk busy for ever.
const MAX_IDLE: u32 = 1 << 16;

/// Addresses in `i_block`: 12 of blocks, then of an indirect, a double and a
/// triple indirect one.
const DIRECT: usize = 12;

/// Gives the file's runs to `visit` in ascending order; what lies between them
/// is a hole. They are inside the file system, but nothing says that they are
/// the file's alone. `number` is for messages.
///
/// Hostile ones end: an extent tree is walked to its depth at most and a map has
/// three levels; runs come in order and have no more blocks than the file
/// system, and of nodes that give none few are walked ([`MAX_IDLE`]).
///
/// # Errors
/// For an image that makes no sense, and what `visit` returns.
pub fn visit(
    fs: &dyn Blocks,
    number: u32,
    inode: &Inode,
    visit: &mut dyn FnMut(Run) -> Read<()>,
) -> Read<()> {
    if !inode.is_mapped() {
        return Ok(());
    }
    let mut walk = Walk {
        fs,
        number,
        next: 0,
        blocks: 0,
        idle: 0,
        visit,
    };
    if inode.has(flags::EXTENTS) {
        let depth = header(&inode.i_block, number)?.eh_depth;
        return walk.extents(&inode.i_block, depth);
    }
    let addresses = inode.i_block.chunks_exact(4).map(|raw| u32_at(raw, 0));
    let per_block = u64::from(fs.block_size() / 4);
    let mut logical = 0;
    for (slot, address) in addresses.enumerate() {
        let levels = slot.saturating_sub(DIRECT - 1);
        walk.map(address, levels, logical)?;
        // At most 2^14 to the power of 3.
        logical += (0..levels).map(|_| per_block).product::<u64>();
    }
    Ok(())
}

fn header(node: &[u8], number: u32) -> Read<Header> {
    Header::decode(node)
        .filter(|header| header.is_possible(node.len()))
        .ok_or_else(|| Fault::Nonsense(format!("inode {number}: its extent tree has a bad header")))
}

struct Walk<'a> {
    fs: &'a dyn Blocks,
    number: u32,
    /// The first block within the file that may come next.
    next: u64,
    /// Blocks so far.
    blocks: u64,
    /// Nodes so far that gave none.
    idle: u32,
    visit: &'a mut dyn FnMut(Run) -> Read<()>,
}

impl Walk<'_> {
    fn extents(&mut self, node: &[u8], depth: u16) -> Read<()> {
        let header = header(node, self.number)?;
        if header.eh_depth != depth {
            return Err(self.nonsense("a node of its extent tree tells a wrong depth"));
        }
        for entry in 0..usize::from(header.eh_entries) {
            if depth == 0 {
                let found = extent::extent(node, entry);
                let found = found.ok_or_else(|| self.nonsense("an extent lies behind its node"))?;
                self.run(Run {
                    logical: found.logical.into(),
                    physical: found.physical,
                    len: found.len.into(),
                    unwritten: found.unwritten,
                })?;
            } else {
                let below = extent::index(node, entry);
                let below = below.ok_or_else(|| self.nonsense("an index lies behind its node"))?;
                if u64::from(below.logical) < self.next {
                    return Err(self.nonsense("its extent tree is not in order"));
                }
                let block = self.fs.block(below.block)?;
                let before = self.blocks;
                self.extents(&block, depth - 1)?;
                self.demand_use(before)?;
            }
        }
        Ok(())
    }

    /// What lies below an address, `levels` of indirection above the data.
    fn map(&mut self, address: u32, levels: usize, logical: u64) -> Read<()> {
        if address == 0 {
            return Ok(());
        }
        if levels == 0 {
            return self.run(Run {
                logical,
                physical: address.into(),
                len: 1,
                unwritten: false,
            });
        }
        let block = self.fs.block(address.into())?;
        let per_block = u64::from(self.fs.block_size() / 4);
        let before = self.blocks;
        let step: u64 = (1..levels).map(|_| per_block).product();
        let mut logical = logical;
        for raw in block.chunks_exact(4) {
            self.map(u32_at(raw, 0), levels - 1, logical)?;
            logical += step;
        }
        self.demand_use(before)
    }

    /// Counts a node that gave no block.
    fn demand_use(&mut self, before: u64) -> Read<()> {
        self.idle += u32::from(self.blocks == before);
        if self.idle > MAX_IDLE {
            return Err(self.nonsense("more than 65,536 nodes of its map lead nowhere"));
        }
        Ok(())
    }

    fn run(&mut self, run: Run) -> Read<()> {
        if run.logical < self.next {
            return Err(self.nonsense("its blocks are not in order"));
        }
        let all = self.fs.all();
        let end = run.physical.checked_add(run.len);
        if run.physical < all.start || end.is_none_or(|end| end > all.end) {
            return Err(Fault::Nonsense(format!(
                "inode {}: its blocks {} and {} on are outside the file system",
                self.number, run.physical, run.len
            )));
        }
        // At most all of them and those of one run more.
        self.blocks += run.len;
        if self.blocks > all.end - all.start {
            return Err(self.nonsense("it has more blocks than the file system"));
        }
        self.next = run.logical + run.len;
        (self.visit)(run)
    }

    fn nonsense(&self, what: &str) -> Fault {
        Fault::Nonsense(format!("inode {}: {what}", self.number))
    }
}

/// All runs of a file, joined where they go on.
#[derive(Debug)]
pub struct Places(Vec<Run>);

/// Files in more pieces are not read that way.
const MAX_PIECES: usize = 1 << 20;

impl Places {
    /// Those of an inode; `number` is for messages.
    ///
    /// # Errors
    /// See [`visit`]; and when the file is in more than 1,048,576 pieces.
    pub fn of(fs: &dyn Blocks, number: u32, inode: &Inode) -> Read<Self> {
        let mut runs: Vec<Run> = Vec::new();
        visit(fs, number, inode, &mut |run| {
            match runs.last_mut() {
                // A map tells block by block.
                Some(last)
                    if last.unwritten == run.unwritten
                        && last.logical + last.len == run.logical
                        && last.physical + last.len == run.physical =>
                {
                    last.len += run.len;
                    return Ok(());
                }
                _ => {}
            }
            if runs.len() == MAX_PIECES {
                return Err(Fault::Nonsense(format!(
                    "inode {number} is in more than {MAX_PIECES} pieces"
                )));
            }
            runs.push(run);
            Ok(())
        })?;
        Ok(Self(runs))
    }

    /// The block with the file's block `logical`; `None` in a hole and where
    /// nothing was written yet.
    #[must_use]
    pub fn block(&self, logical: u64) -> Option<u64> {
        let at = self
            .0
            .partition_point(|run| run.logical + run.len <= logical);
        let run = self.0.get(at).filter(|run| run.logical <= logical)?;
        (!run.unwritten).then(|| run.physical + (logical - run.logical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 4 KiB, all of which but the first few are zeros.
    struct Few(Vec<Vec<u8>>);

    const SIZE: usize = 1 << 12;

    impl Blocks for Few {
        fn block_size(&self) -> u32 {
            SIZE as u32
        }

        fn all(&self) -> Range<u64> {
            0..1 << 20
        }

        fn block(&self, number: u64) -> Read<Vec<u8>> {
            let found = self.0.iter().zip(0..).find(|&(_, at)| at == number);
            Ok(found.map_or_else(|| vec![0; SIZE], |(block, _)| block.clone()))
        }
    }

    fn inode(i_block: &[u8], i_flags: u32) -> Inode {
        let mut raw = [0; 128];
        raw[..2].copy_from_slice(&0o100_644_u16.to_le_bytes());
        raw[0x20..0x24].copy_from_slice(&i_flags.to_le_bytes());
        raw[0x28..0x28 + i_block.len()].copy_from_slice(i_block);
        Inode::decode(&raw).unwrap()
    }

    fn addressed(to: u32) -> Vec<u8> {
        to.to_le_bytes().repeat(SIZE / 4)
    }

    fn node(entries: u16, max: u16, depth: u16, below: u32) -> Vec<u8> {
        let mut node: Vec<u8> = [0xf30a, entries, max, depth]
            .iter()
            .flat_map(|half: &u16| half.to_le_bytes())
            .collect();
        node.resize(12, 0);
        for _ in 0..entries {
            node.extend([0; 4]);
            node.extend(below.to_le_bytes());
            node.extend([0; 4]);
        }
        node.resize(if max == 4 { 60 } else { SIZE }, 0);
        node
    }

    fn complaint(fs: &Few, inode: &Inode) -> String {
        match Places::of(fs, 12, inode) {
            Ok(places) => panic!("{places:?}"),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn joined_and_found() {
        let fs = Few(Vec::new());
        let mut i_block = Vec::new();
        for address in [5u32, 6, 0, 7, 9, 0, 0, 0, 0, 0, 0, 0] {
            i_block.extend(address.to_le_bytes());
        }
        let places = Places::of(&fs, 12, &inode(&i_block, 0)).unwrap();
        assert_eq!(places.0.len(), 3);
        let found: Vec<_> = (0..6).map(|logical| places.block(logical)).collect();
        assert_eq!(found, [Some(5), Some(6), None, Some(7), Some(9), None]);
    }

    #[test]
    fn nodes_that_lead_to_each_other_end() {
        let map = |to: u32| {
            let mut i_block = vec![0; 56];
            i_block.extend(to.to_le_bytes());
            inode(&i_block, 0)
        };
        // 1,024 addresses of a block of zeros at each of two levels.
        let zeros = Few(vec![Vec::new(), addressed(2), addressed(3)]);
        assert!(complaint(&zeros, &map(1)).contains("lead nowhere"));
        // The same block 2^30 times.
        let again = Few(vec![Vec::new(), addressed(1)]);
        assert!(complaint(&again, &map(1)).contains("more blocks than the file system"));
        // 4 times 340 times 340 times a leaf without extents.
        let tree = Few(vec![
            node(340, 340, 2, 1),
            node(340, 340, 1, 2),
            node(0, 340, 0, 0),
        ]);
        let root = inode(&node(4, 4, 3, 0), flags::EXTENTS);
        assert!(complaint(&tree, &root).contains("lead nowhere"));
    }
}
