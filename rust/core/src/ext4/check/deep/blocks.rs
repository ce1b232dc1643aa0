//! What takes blocks, and what more than one thing takes; the block maps of
//! ext2.

use super::Deep;
use crate::error::Result;
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::features::incompat;
use crate::ext4::read::inode::{flags, Inode, Kind, BAD_INODE};

/// Direct addresses in `i_block`.
const DIRECT: usize = 12;

/// What a walk through a file's blocks finds.
pub(super) struct Mapped {
    pub(super) number: u32,
    /// Clusters that it takes, those of its map among them.
    pub(super) clusters: u64,
    /// Last block within the file that is mapped.
    pub(super) last: Option<u64>,
    /// The last of those that are not unwritten.
    pub(super) last_written: Option<u64>,
    /// The block before on the disk, for clusters of several blocks.
    pub(super) previous: Option<(u64, u64)>,
    pub(super) is_directory: bool,
    /// Problems so far: a map of garbage has very many.
    pub(super) bad: u32,
}

impl Mapped {
    pub(super) fn of(number: u32, inode: &Inode) -> Self {
        Self {
            number,
            clusters: 0,
            last: None,
            last_written: None,
            previous: None,
            is_directory: inode.kind() == Some(Kind::Directory),
            bad: 0,
        }
    }
}

/// A file whose map has so many problems is not followed further.
const TOO_BAD: u32 = 12;

impl Deep<'_> {
    pub(super) fn bad_map(&mut self, map: &mut Mapped, code: &'static str, text: String) {
        map.bad += 1;
        self.problem(code, format!("inode {}: {text}", map.number));
    }

    /// Whether following a map is for nothing.
    pub(super) fn gave_up(map: &Mapped) -> bool {
        map.bad >= TOO_BAD
    }

    /// Takes a block of an inode's map or attributes; whether it was free.
    pub(super) fn take(&mut self, number: u32, what: &str, block: u64) -> bool {
        self.take_run(number, what, block, 1)
    }

    /// Takes the clusters of a run of blocks; whether all of them were free.
    pub(super) fn take_run(&mut self, number: u32, what: &str, first: u64, len: u64) -> bool {
        let cluster = self.cluster(first);
        let clusters = self.cluster(first + (len - 1)) - cluster + 1;
        let Some(shared) = self.taken.insert_range(cluster, clusters) else {
            return true;
        };
        let ratio = u64::from(self.geometry.cluster_ratio);
        let block = (shared * ratio + u64::from(self.geometry.first_data_block)).max(first);
        let other = if self.metadata.contains(block) {
            "of the file system's own metadata"
        } else {
            "in use elsewhere as well"
        };
        self.problem(
            "block-shared",
            format!("inode {number}: block {block} of its {what} is {other}"),
        );
        false
    }

    /// Takes a bad block, of which inode 1 has a list: what lies where on the disk, and not a
    /// file's blocks in their order. Several may lie in one cluster (`process_bad_block`).
    fn take_bad(&mut self, block: u64) {
        if self.metadata.contains(block) {
            self.take(BAD_INODE, "data", block);
        } else {
            self.taken.insert_range(self.cluster(block), 1);
        }
    }

    /// Takes a run of a file's data, as e2fsck counts clusters: one whose
    /// beginning belongs to the run before is not counted twice.
    pub(super) fn take_data(
        &mut self,
        map: &mut Mapped,
        logical: u64,
        physical: u64,
        len: u64,
    ) -> bool {
        let ratio = u64::from(self.geometry.cluster_ratio);
        // `has_unaligned_cluster_map`
        if logical % ratio != physical % ratio {
            self.bad_map(
                map,
                "cluster-alignment",
                format!("block {logical} of the file is block {physical}, at another place in its cluster"),
            );
        }
        let (mut first, mut len_left) = (physical, len);
        if let (true, Some((before_logical, before))) = (ratio > 1, map.previous) {
            let same_place = self.cluster(before) == self.cluster(physical);
            if same_place {
                let (a, b) = (before_logical / ratio, logical / ratio);
                if a != b {
                    self.bad_map(
                        map,
                        "cluster-alignment",
                        format!(
                            "block {logical} of the file shares a cluster with another part of it"
                        ),
                    );
                    return false;
                }
                let next = (physical / ratio + 1) * ratio;
                len_left = (physical + len).saturating_sub(next);
                first = next;
            } else if before_logical / ratio == logical / ratio {
                self.bad_map(
                    map,
                    "cluster-alignment",
                    format!(
                        "block {logical} of the file lies in another cluster than the one before"
                    ),
                );
                return false;
            }
        }
        map.previous = Some((logical + len - 1, physical + len - 1));
        if len_left == 0 {
            return true;
        }
        map.clusters += self.cluster(first + len_left - 1) - self.cluster(first) + 1;
        let free = self.take_run(map.number, "data", first, len_left);
        if !free {
            map.bad += 1;
        }
        free
    }

    /// Walks the block map of an inode without extents.
    pub(super) fn block_map(&mut self, inode: &Inode, map: &mut Mapped) -> Result<()> {
        let per_block = u64::from(self.geometry.block_size / 4);
        let mut logical = 0u64;
        for slot in 0..15usize {
            let levels = slot.saturating_sub(DIRECT - 1);
            let address = u32_at(&inode.i_block, slot * 4);
            self.mapped(inode, map, address, levels, logical)?;
            logical += (0..levels).map(|_| per_block).product::<u64>();
        }
        map.last_written = map.last;
        Ok(())
    }

    fn mapped(
        &mut self,
        inode: &Inode,
        map: &mut Mapped,
        address: u32,
        levels: usize,
        logical: u64,
    ) -> Result<()> {
        if address == 0 || Self::gave_up(map) {
            return Ok(());
        }
        let block = u64::from(address);
        if !self.is_inside(block) {
            self.bad_map(
                map,
                "block-range",
                format!(
                    "its map names block {block}; the file system has {}",
                    self.geometry.blocks
                ),
            );
            return Ok(());
        }
        if levels == 0 {
            if self.too_big(inode, logical) {
                self.bad_map(
                    map,
                    "inode-size",
                    format!("block {logical} is behind what such a file may have"),
                );
                return Ok(());
            }
            if map.number == BAD_INODE {
                self.take_bad(block);
            } else {
                self.take_data(map, logical, block, 1);
            }
            map.last = Some(logical);
            return Ok(());
        }
        self.control.check()?;
        map.clusters += 1;
        if !self.take(map.number, "block map", block) {
            // It was read already, or it is no map.
            map.bad += 1;
            return Ok(());
        }
        let mut raw = self.block_buffer();
        if !self.read_block(block, &mut raw)? {
            return Ok(());
        }
        let per_block = u64::from(self.geometry.block_size / 4);
        let step: u64 = (1..levels).map(|_| per_block).product();
        for (slot, raw) in (0u64..).zip(raw.chunks_exact(4)) {
            self.mapped(
                inode,
                map,
                u32_at(raw, 0),
                levels - 1,
                logical + slot * step,
            )?;
        }
        Ok(())
    }

    /// `PR_1_TOOBIG_DIR` and its kin.
    pub(super) fn too_big(&self, inode: &Inode, logical: u64) -> bool {
        match inode.kind() {
            Some(Kind::Directory) => {
                !self.sb.has_incompat(incompat::LARGE_DIR)
                    && inode.size >> 32 == 0
                    && logical > 1 << 21 >> self.sb.s_log_block_size
            }
            Some(Kind::Symlink) => logical > 0,
            _ => false,
        }
    }

    /// Whether an inode's `i_block` maps blocks, by e2fsck's reckoning
    /// (`ext2fs_inode_has_valid_blocks2`): a symlink's may be its target.
    pub(super) fn maps_blocks(inode: &Inode) -> bool {
        match inode.kind() {
            Some(Kind::Directory | Kind::Regular) => !inode.has(flags::INLINE_DATA),
            Some(Kind::Symlink) if inode.file_acl == 0 => {
                inode.blocks & 0xffff_ffff != 0 && !(inode.size > 0 && inode.size < 60)
            }
            Some(Kind::Symlink) => {
                let low = inode.size & 0xffff_ffff;
                low >= 60 || (low > 4 && u32_at(&inode.i_block, 4) == 0)
            }
            _ => false,
        }
    }
}
