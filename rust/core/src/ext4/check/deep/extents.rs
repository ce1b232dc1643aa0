//! Extent trees (`scan_extent_node`).

use super::blocks::Mapped;
use super::Deep;
use crate::error::Result;
use crate::ext4::read::extent::{self, Header, ENTRY_SIZE};
use crate::ext4::read::features::incompat;
use crate::ext4::read::inode::{checksum_seed, Inode};

/// What is known of a node from above.
#[derive(Clone, Copy)]
struct Node {
    /// The block it is in; `None` for the root, in the inode.
    block: Option<u64>,
    depth: u16,
    /// Blocks of the file that it may map: from here on,
    first: u64,
    /// and before here, where there is a bound.
    end: Option<u64>,
}

impl Deep<'_> {
    /// Whether a header is one by e2fsck's rule (`ext2fs_extent_header_verify`):
    /// the room that is not told of is that of a checksum at most.
    pub(super) fn is_extent_header(header: &Header, len: usize) -> bool {
        let told = (usize::from(header.eh_max) + 1) * ENTRY_SIZE;
        header.is_possible(len) && len - told <= 2 * ENTRY_SIZE
    }

    /// Walks the extent tree of an inode.
    pub(super) fn extents(&mut self, inode: &Inode, map: &mut Mapped) -> Result<()> {
        let header = Header::decode(&inode.i_block);
        let Some(header) = header.filter(|header| Self::is_extent_header(header, 60)) else {
            self.bad_map(
                map,
                "extent-header",
                "its extent tree has no valid header".into(),
            );
            return Ok(());
        };
        let root = Node {
            block: None,
            depth: header.eh_depth,
            first: 0,
            end: None,
        };
        self.extent_node(inode, map, &inode.i_block, header, root)
    }

    fn extent_node(
        &mut self,
        inode: &Inode,
        map: &mut Mapped,
        raw: &[u8],
        header: Header,
        node: Node,
    ) -> Result<()> {
        let mut first = node.first;
        for entry in 0..usize::from(header.eh_entries) {
            if Self::gave_up(map) {
                return Ok(());
            }
            if node.depth == 0 {
                if let Some(found) = extent::extent(raw, entry) {
                    if self.one_extent(inode, map, found, Node { first, ..node }) {
                        first = u64::from(found.logical) + u64::from(found.len);
                    }
                }
                continue;
            }
            let Some(index) = extent::index(raw, entry) else {
                return Ok(());
            };
            let next = (entry + 1 < usize::from(header.eh_entries))
                .then(|| extent::index(raw, entry + 1))
                .flatten();
            let below = Node {
                block: Some(index.block),
                depth: node.depth - 1,
                first: index.logical.into(),
                end: next.map(|next| next.logical.into()).or(node.end),
            };
            if below.first < first || next.is_some_and(|next| next.logical <= index.logical) {
                self.bad_map(
                    map,
                    "extent-order",
                    format!("the index of block {} is not in order", index.logical),
                );
                continue;
            }
            first = below.first;
            self.extent_block(inode, map, below)?;
        }
        Ok(())
    }

    fn extent_block(&mut self, inode: &Inode, map: &mut Mapped, node: Node) -> Result<()> {
        let Some(block) = node.block else {
            return Ok(());
        };
        self.control.check()?;
        if !self.is_inside(block) {
            self.bad_map(
                map,
                "extent-range",
                format!(
                    "a node of its extent tree is at block {block}; the file system has {}",
                    self.geometry.blocks
                ),
            );
            return Ok(());
        }
        map.clusters += 1;
        if !self.take(map.number, "extent tree", block) {
            // It was walked already, or it is no node.
            map.bad += 1;
            return Ok(());
        }
        let mut raw = self.block_buffer();
        if !self.read_block(block, &mut raw)? {
            return Ok(());
        }
        let header = Header::decode(&raw).filter(|header| {
            Self::is_extent_header(header, raw.len())
                && header.eh_depth == node.depth
                && header.eh_entries > 0
        });
        let Some(header) = header else {
            self.bad_map(
                map,
                "extent-header",
                format!("block {block} of its extent tree has no valid header"),
            );
            return Ok(());
        };
        if self.sb.has_checksums() {
            let seed = checksum_seed(map.number, inode.i_generation, self.seed);
            let sums = extent::checksums(&raw, seed);
            if sums.is_none_or(|(stored, computed)| stored != computed) {
                self.bad_map(
                    map,
                    "extent-checksum",
                    format!(
                        "the checksum of block {block} of its extent tree is not that of its bytes"
                    ),
                );
            }
        }
        let begin = if node.depth == 0 {
            extent::extent(&raw, 0).map(|found| found.logical)
        } else {
            extent::index(&raw, 0).map(|found| found.logical)
        };
        if begin.is_none_or(|begin| u64::from(begin) != node.first) {
            self.bad_map(
                map,
                "extent-order",
                format!(
                    "block {block} of its extent tree begins at block {} of the file, its index says {}",
                    begin.unwrap_or(0),
                    node.first
                ),
            );
        }
        self.extent_node(inode, map, &raw, header, node)
    }

    /// Whether an extent is one that the next has to lie behind.
    fn one_extent(
        &mut self,
        inode: &Inode,
        map: &mut Mapped,
        found: extent::Extent,
        node: Node,
    ) -> bool {
        let (logical, len) = (u64::from(found.logical), u64::from(found.len));
        let end = logical + len;
        let place = format!("the extent of {len} blocks at block {logical} of the file");
        let fault = if found.len == 0 {
            Some((
                "extent-length",
                format!("the extent at block {logical} of the file has no blocks"),
            ))
        } else if !self.is_inside(found.physical) || found.physical + len > self.geometry.blocks {
            Some((
                "extent-range",
                format!(
                    "{place} is at block {}; the file system has {}",
                    found.physical, self.geometry.blocks
                ),
            ))
        } else if logical < node.first || end > 1 << 32 {
            Some((
                "extent-order",
                format!("{place} is not behind the one before"),
            ))
        } else if node.end.is_some_and(|bound| end > bound) {
            Some((
                "extent-order",
                format!("{place} reaches behind what its node maps"),
            ))
        } else if map.is_directory
            && inode.size >> 32 == 0
            && !self.sb.has_incompat(incompat::LARGE_DIR)
            && end > 1 << 21 >> self.sb.s_log_block_size
        {
            Some((
                "inode-size",
                format!("{place} is behind what a directory may have"),
            ))
        } else if map.is_directory && found.unwritten {
            Some((
                "directory-unwritten",
                format!("{place} is unwritten, in a directory"),
            ))
        } else {
            None
        };
        if let Some((code, text)) = fault {
            self.bad_map(map, code, text);
            return false;
        }
        if map.is_directory && logical > map.last.map_or(0, |last| last + 1) {
            self.bad_map(
                map,
                "directory-hole",
                format!("it is a directory with a hole before block {logical}"),
            );
        }
        self.take_data(map, logical, found.physical, len);
        map.last = Some(end - 1);
        if !found.unwritten {
            map.last_written = Some(end - 1);
        }
        true
    }
}
