//! How large the image is: solves for a number of blocks that holds the tree,
//! the journal that belongs to that number, and the file system's own blocks.

use super::attributes::Attributes;
use super::geometry::{group_count, Geometry, Spacing};
use super::layout::{Layout, Layouter};
use super::numbers::Numbers;
use super::options::{ImageOptions, Profile, Size};
use super::validate::{larger, MIN_JOURNAL};
use crate::error::{Error, Result};
use crate::ext4::format::features::{Features, Incompat};
use crate::ext4::format::BlockSize;
use crate::tree::Slot;

/// The largest image in bytes. With blocks of 4,096 bytes extents and e2fsprogs
/// take more, but beyond 16 TiB nothing here has been tried. With smaller ones
/// the descriptors of all groups must fit into less than half a group.
const fn most_bytes(block_size: BlockSize) -> u64 {
    match block_size.bytes() {
        1024 => 256 << 30,
        2048 => 4 << 40,
        _ => 16 << 40,
    }
}
/// Bytes for each inode, as in mke2fs.conf's default.
const BYTES_PER_INODE: u64 = 16384;

/// Inodes of a group at one for each 16 KiB.
const fn default_inodes_per_group(block_size: BlockSize) -> u32 {
    let bytes = block_size.bytes_of(block_size.blocks_per_group() as u64);
    // At most 8,192.
    (bytes / BYTES_PER_INODE) as u32
}

/// A size with all that follows from it.
#[derive(Debug)]
pub(crate) struct Sized {
    /// The geometry.
    pub(crate) geometry: Geometry,
    /// The inode numbers.
    pub(crate) numbers: Numbers,
    /// Where everything lies.
    pub(crate) layout: Layout,
    /// Blocks of the journal.
    pub(crate) journal: u32,
}

/// `ext2fs_default_journal_size`, in blocks.
#[must_use]
pub(crate) fn default_journal(blocks: u64) -> u32 {
    const STEPS: [(u64, u32); 8] = [
        (2048, 0),
        (32768, 1024),
        (256 << 10, 4096),
        (512 << 10, 8192),
        (4096 << 10, 16384),
        (8192 << 10, 32768),
        (16384 << 10, 65536),
        (32768 << 10, 131_072),
    ];
    STEPS
        .into_iter()
        .find_map(|(below, journal)| (blocks < below).then_some(journal))
        .unwrap_or(262_144)
}

/// The next smaller journal to be tried, or none.
fn smaller_journal(blocks: u32) -> u32 {
    let half = blocks / 2;
    if half < MIN_JOURNAL {
        0
    } else {
        half
    }
}

/// Blocks that only root may fill.
pub(crate) fn reserved_blocks(options: &ImageOptions, block_size: BlockSize) -> u64 {
    block_size.blocks_of(options.reserved)
}

/// Finds the size that `options` wish for.
pub(crate) fn solve(
    layouter: &Layouter<'_>,
    block_size: BlockSize,
    options: &ImageOptions,
    features: &Features,
    wished_journal: Option<u32>,
    attributes: &mut Attributes,
) -> Result<Sized> {
    let mut solver = Solver {
        layouter,
        block_size,
        options,
        features,
        wished_journal,
        attributes,
    };
    let sized = match options.size {
        Size::Auto if options.profile == Profile::Readonly => solver.min(),
        Size::Auto => solver.auto(),
        Size::Min => solver.min(),
        Size::Bytes(bytes) => solver.fixed(bytes),
    }?;
    let wished = options.inodes.unwrap_or(0);
    let most = sized.geometry.inodes();
    if wished.max(sized.numbers.highest().into()) > most.into() {
        let bytes = block_size.bytes_of(sized.geometry.blocks);
        return Err(Error::InvalidOption {
            option: "inodes",
            reason: format!("{wished}; an image of {bytes} bytes has at most {most}"),
        });
    }
    Ok(sized)
}

/// The most inodes of each of so many groups. Inodes are numbered with 32 bits,
/// and the kernel mounts nothing whose number of inodes is not that of one
/// group times the groups.
fn max_inodes_per_group(block_size: BlockSize, groups: u32) -> u32 {
    let most = u32::MAX / groups;
    let most = most - most % inodes_step(block_size);
    most.min(block_size.max_inodes_per_group())
}

/// Inodes of a group are a multiple of it: tables are counted in blocks, and
/// bitmaps in whole bytes.
fn inodes_step(block_size: BlockSize) -> u32 {
    block_size.inodes_per_block().max(8)
}

struct Solver<'a, 't> {
    layouter: &'a Layouter<'t>,
    block_size: BlockSize,
    options: &'a ImageOptions,
    features: &'a Features,
    wished_journal: Option<u32>,
    attributes: &'a mut Attributes,
}

impl Solver<'_, '_> {
    fn auto(&mut self) -> Result<Sized> {
        let spacing = self.spacing();
        let numbers = self.numbers(spacing)?;
        let free = self.block_size.blocks_of(self.options.free_space)
            + reserved_blocks(self.options, self.block_size);
        let most = self.block_size.max_inodes_per_group();
        // More inodes in each group only when one for 16 KiB is not enough.
        let mut inodes_per_group = default_inodes_per_group(self.block_size);
        let (geometry, layout, journal) = loop {
            let found = self.stable(spacing, inodes_per_group, free, 0)?;
            let wanted = self.wanted_inodes(&numbers, found.0.blocks);
            if u64::from(found.0.inodes()) >= wanted {
                break found;
            }
            if inodes_per_group >= most {
                // Even so: as many groups as their inodes need.
                let groups = wanted.div_ceil(u64::from(most));
                let least = groups * u64::from(self.block_size.blocks_per_group());
                break self.stable(spacing, inodes_per_group, free, least)?;
            }
            inodes_per_group *= 2;
        };
        Ok(Sized {
            geometry,
            numbers,
            layout,
            journal,
        })
    }

    /// The size for a number of inodes in a group, with `free` free blocks and
    /// at least `least` blocks in all.
    fn stable(
        &mut self,
        spacing: Spacing,
        inodes_per_group: u32,
        free: u64,
        least: u64,
    ) -> Result<(Geometry, Layout, u32)> {
        let mut blocks = least.max(free).max(1);
        loop {
            self.check_limit(blocks)?;
            let geometry = self.geometry(blocks, inodes_per_group, spacing);
            let journal = self.journal(blocks);
            let layout = self.layout(&geometry, spacing, journal);
            let filled = geometry.group_start(0) + layout.used + geometry.own_blocks() + free;
            let need = filled.max(self.needed(&geometry, &layout));
            if need <= blocks {
                return Ok((geometry, layout, journal));
            }
            blocks = need;
        }
    }

    fn min(&mut self) -> Result<Sized> {
        let numbers = self.numbers(Spacing::Compact)?;
        // What a size needs never falls when the size grows, so that going up
        // from nothing stops at the least size that is enough for itself.
        let mut blocks = 1;
        loop {
            let (geometry, layout, journal) = self.compact(&numbers, blocks, u32::MAX)?;
            let need = self.needed(&geometry, &layout);
            self.check_limit(need)?;
            if need <= blocks {
                return Ok(Sized {
                    geometry,
                    numbers,
                    layout,
                    journal,
                });
            }
            blocks = need;
        }
    }

    fn fixed(&mut self, bytes: u64) -> Result<Sized> {
        let wished = bytes / u64::from(self.block_size.bytes());
        self.check_limit(wished)?;
        let spacing = self.spacing();
        if spacing == Spacing::Stable {
            let numbers = self.numbers(spacing)?;
            let blocks = self.whole_groups_or(wished, spacing);
            let geometry =
                self.geometry(blocks, default_inodes_per_group(self.block_size), spacing);
            if u64::from(geometry.inodes()) >= self.wanted_inodes(&numbers, blocks) {
                let journal = self.journal(blocks);
                let layout = self.layout(&geometry, spacing, journal);
                if self.needed(&geometry, &layout) <= blocks {
                    return Ok(Sized {
                        geometry,
                        numbers,
                        layout,
                        journal,
                    });
                }
            }
        }
        // What does not fit with gaps may fit without. The last group may be
        // too small for its own blocks, and a journal that does not fit may be
        // smaller, down to that of the least image.
        let least = self.min()?;
        let needed = least.geometry.blocks;
        if wished < needed {
            return Err(Error::TooSmall {
                given: bytes,
                needed: self.block_size.bytes_of(needed),
            });
        }
        let boundary = self.whole_groups(wished);
        for blocks in [wished, boundary] {
            let mut journal = self.journal(blocks);
            while blocks >= needed && journal >= least.journal {
                let numbers = self.numbers(Spacing::Compact)?;
                let (geometry, layout, taken) = self.compact(&numbers, blocks, journal)?;
                if self.needed(&geometry, &layout) <= blocks {
                    return Ok(Sized {
                        geometry,
                        numbers,
                        layout,
                        journal: taken,
                    });
                }
                if journal == 0 || self.wished_journal.is_some() {
                    break;
                }
                journal = smaller_journal(journal);
            }
        }
        // Placed anew: the attributes' blocks lie where the last try put them.
        self.min()
    }

    /// A compact layout in `blocks` blocks, which may be too few, with a
    /// journal of at most `journal_limit` blocks.
    fn compact(
        &mut self,
        numbers: &Numbers,
        blocks: u64,
        journal_limit: u32,
    ) -> Result<(Geometry, Layout, u32)> {
        let journal = self.journal(blocks).min(journal_limit);
        let wanted = self.wanted_inodes(numbers, blocks);
        let groups = u64::from(group_count(self.block_size, blocks));
        let most = u64::from(self.block_size.max_inodes_per_group());
        let least = wanted.div_ceil(most);
        // Too few groups for the inodes: the size of enough groups is needed.
        let groups = groups.max(least);
        let inodes_per_group = wanted
            .div_ceil(groups)
            .next_multiple_of(inodes_step(self.block_size).into())
            .min(most) as u32;
        let at_least = u64::from(self.block_size.first_block())
            + (groups - 1) * u64::from(self.block_size.blocks_per_group())
            + 1;
        let blocks = blocks.max(at_least);
        // Beyond the limit the descriptors do not fit into a group.
        self.check_limit(blocks)?;
        let geometry = self.geometry(blocks, inodes_per_group, Spacing::Compact);
        let layout = self.layout(&geometry, Spacing::Compact, journal);
        Ok((geometry, layout, journal))
    }

    fn numbers(&self, spacing: Spacing) -> Result<Numbers> {
        Numbers::new(self.layouter.tree, spacing, self.attributes.values().len())
    }

    /// Blocks of the journal in a file system of so many blocks.
    fn journal(&self, blocks: u64) -> u32 {
        self.wished_journal
            .unwrap_or_else(|| default_journal(blocks))
    }

    fn layout(&mut self, geometry: &Geometry, spacing: Spacing, journal: u32) -> Layout {
        self.layouter
            .layout(geometry, spacing, journal, self.attributes)
    }

    /// Inodes for a file system of `blocks` blocks: one for 16 KiB or what the
    /// user says, and never fewer than there are and a tenth more.
    fn wanted_inodes(&self, numbers: &Numbers, blocks: u64) -> u64 {
        let used = u64::from(numbers.highest());
        if self.options.profile == Profile::Readonly && self.options.inodes.is_none() {
            return used;
        }
        let by_size = self.block_size.bytes_of(blocks) / BYTES_PER_INODE;
        let wished = self.options.inodes.unwrap_or(by_size);
        wished
            .max(used + used.div_ceil(10))
            .min(u64::from(u32::MAX))
    }

    /// Gaps for hidden content are kept while they are small beside what is
    /// visible: they cost nothing in a sparse file, but not all files stay so.
    fn spacing(&self) -> Spacing {
        let tree = self.layouter.tree;
        let hidden = tree.slots().iter().fold(0u64, |sum, slot| match *slot {
            Slot::Ghost { size, .. } => sum.saturating_add(size),
            _ => sum,
        });
        if self.options.inodes.is_some() || hidden > tree.counts().bytes / 2 {
            Spacing::Compact
        } else {
            Spacing::Stable
        }
    }

    /// Blocks that hold all of it, and twice what is reserved: of a file
    /// system that reserves more e2fsck says that its superblock is corrupt.
    fn needed(&self, geometry: &Geometry, layout: &Layout) -> u64 {
        layout
            .end
            .max(geometry.metadata_end())
            .max(2 * reserved_blocks(self.options, self.block_size))
    }

    fn geometry(&self, blocks: u64, inodes_per_group: u32, spacing: Spacing) -> Geometry {
        let groups = group_count(self.block_size, blocks);
        Geometry::new(
            self.block_size,
            blocks,
            inodes_per_group.min(max_inodes_per_group(self.block_size, groups)),
            spacing,
            self.features,
        )
    }

    fn check_limit(&self, blocks: u64) -> Result<()> {
        let most = most_bytes(self.block_size);
        // Without 64-bit numbers the count itself must fit into 32.
        let wide = self.features.incompat.contains(Incompat::SIXTY_FOUR_BIT);
        let bytes = u128::from(blocks) * u128::from(self.block_size.bytes());
        if bytes <= u128::from(most) && (wide || blocks <= u64::from(u32::MAX)) {
            return Ok(());
        }
        Err(Error::InvalidOption {
            option: "size",
            reason: format!(
                "an image of {bytes} bytes would be larger than {most}{}, the most with blocks of {} bytes; \
                 wish for a smaller one, or for fewer inodes{}",
                if wide { "" } else { " less one block" },
                self.block_size.bytes(),
                larger(self.block_size)
            ),
        })
    }

    /// Blocks of the whole groups among `blocks`.
    fn whole_groups(&self, blocks: u64) -> u64 {
        let first = u64::from(self.block_size.first_block());
        let there = blocks.saturating_sub(first);
        blocks - there % u64::from(self.block_size.blocks_per_group())
    }

    /// `blocks`, or as many as whole groups have when the last group does not
    /// hold its own blocks. mke2fs drops such a group as well.
    fn whole_groups_or(&self, blocks: u64, spacing: Spacing) -> u64 {
        let inodes_per_group = default_inodes_per_group(self.block_size);
        let geometry = self.geometry(blocks, inodes_per_group, spacing);
        if geometry.metadata_end() <= blocks || geometry.groups <= 1 {
            return blocks;
        }
        self.whole_groups(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From mke2fs of e2fsprogs 1.47.0, by dumpe2fs.
    #[test]
    fn journals_are_as_mke2fs_sizes_them() {
        for (mebibytes, journal) in [
            (7, 0),
            (8, 1024),
            (127, 1024),
            (128, 4096),
            (1024, 8192),
            (2048, 16384),
        ] {
            assert_eq!(default_journal(mebibytes << 8), journal, "{mebibytes} MiB");
        }
    }

    #[test]
    fn inodes_of_all_groups_have_numbers_of_32_bits() {
        for (bytes, groups, most) in [
            (4096, 1, 32_768),
            (4096, 131_071, 32_768),
            (4096, 131_072, 32_752),
            (2048, 131_072, 16_384),
            (1024, 32_768, 8192),
        ] {
            let block_size = BlockSize::new(bytes).unwrap();
            assert_eq!(max_inodes_per_group(block_size, groups), most);
        }
    }
}
