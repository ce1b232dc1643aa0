//! Where a file's data is, by extents or by the block map of ext2.

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

/// Addresses in `i_block`: 12 of blocks, then of an indirect, a double and a
/// triple indirect one.
const DIRECT: usize = 12;

/// Gives the file's runs to `visit` in ascending order; what lies between them
/// is a hole. They are inside the file system, but nothing says that they are
/// the file's alone. `number` is for messages.
///
/// An extent tree is walked to its depth at most, and a map has three levels, so
/// that hostile ones end; every entry costs a visit only when its logical
/// blocks are behind those before.
///
/// # Errors
/// For an image that makes no sense, and what `visit` returns.
pub fn visit(
    fs: &Filesystem,
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
        visit,
    };
    if inode.has(flags::EXTENTS) {
        let depth = header(&inode.i_block, number)?.eh_depth;
        return walk.extents(&inode.i_block, depth);
    }
    let addresses = inode.i_block.chunks_exact(4).map(|raw| u32_at(raw, 0));
    let per_block = u64::from(fs.geometry.block_size / 4);
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
    fs: &'a Filesystem,
    number: u32,
    /// The first block within the file that may come next.
    next: u64,
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
                self.extents(&block, depth - 1)?;
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
        let per_block = u64::from(self.fs.geometry.block_size / 4);
        let step: u64 = (1..levels).map(|_| per_block).product();
        let mut logical = logical;
        for raw in block.chunks_exact(4) {
            self.map(u32_at(raw, 0), levels - 1, logical)?;
            logical += step;
        }
        Ok(())
    }

    fn run(&mut self, run: Run) -> Read<()> {
        if run.logical < self.next {
            return Err(self.nonsense("its blocks are not in order"));
        }
        let end = run.physical.checked_add(run.len);
        if run.physical < u64::from(self.fs.geometry.first_data_block)
            || end.is_none_or(|end| end > self.fs.geometry.blocks)
        {
            return Err(Fault::Nonsense(format!(
                "inode {}: its blocks {} and {} on are outside the file system",
                self.number, run.physical, run.len
            )));
        }
        self.next = run.logical + run.len;
        (self.visit)(run)
    }

    fn nonsense(&self, what: &str) -> Fault {
        Fault::Nonsense(format!("inode {}: {what}", self.number))
    }
}
