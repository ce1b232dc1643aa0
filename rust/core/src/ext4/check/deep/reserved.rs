//! Inodes that are the file system's own.

use super::blocks::Mapped;
use super::Deep;
use crate::error::Result;
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::features::{compat, ro_compat};
use crate::ext4::read::inode::{
    flags, Inode, Kind, BAD_INODE, BOOT_LOADER_INODE, GROUP_QUOTA_INODE, JOURNAL_INODE,
    RESIZE_INODE, USER_QUOTA_INODE,
};

/// Where the double indirect block's address is in `i_block`.
const DOUBLE: usize = 13 * 4;

impl Deep<'_> {
    /// Whether the superblock names an ordinary number for an inode of its own.
    pub(super) fn is_special(&self, number: u32) -> bool {
        let sb = self.sb;
        (sb.s_prj_quota_inum == number && sb.has_ro_compat(ro_compat::QUOTA))
            || (sb.s_orphan_file_inum == number && sb.has_compat(compat::ORPHAN_FILE))
    }

    pub(super) fn reserved_inode(&mut self, number: u32, inode: &Inode) -> Result<()> {
        let sb = self.sb;
        let entry = self.inodes.entry(number);
        entry.used = true;
        entry.links = inode.i_links_count;
        entry.kind = inode.kind();
        let quota = (number == USER_QUOTA_INODE && sb.s_usr_quota_inum == number)
            || (number == GROUP_QUOTA_INODE && sb.s_grp_quota_inum == number);
        let own_file = (number == JOURNAL_INODE && sb.s_journal_inum == number)
            || (quota && sb.has_ro_compat(ro_compat::QUOTA))
            || self.is_special(number);
        let regular = inode.kind() == Some(Kind::Regular);
        if number == BAD_INODE {
            return self.bad_blocks(inode);
        }
        if own_file {
            if !regular {
                self.problem(
                    "reserved-inode",
                    format!("inode {number}: it is the file system's own, but no regular file"),
                );
            }
        } else if number == JOURNAL_INODE
            || number == USER_QUOTA_INODE
            || number == GROUP_QUOTA_INODE
        {
            if inode.i_links_count != 0 || inode.blocks != 0 || inode.i_block[..4] != [0; 4] {
                self.problem(
                    "reserved-inode",
                    format!("inode {number}: it is the file system's own and has something in it, but is not in use"),
                );
            }
        } else {
            let bad = match number {
                BOOT_LOADER_INODE => inode.kind() == Some(Kind::Directory),
                RESIZE_INODE => inode.i_mode != 0 && !regular,
                _ => inode.i_mode != 0,
            };
            if bad {
                self.problem(
                    "reserved-inode",
                    format!(
                        "inode {number}: it is reserved, but has the mode 0{:o}",
                        inode.i_mode
                    ),
                );
            }
        }
        let mut map = Mapped::of(number, inode);
        map.clusters = self.attribute_block(number, inode)?.clusters;
        if number == RESIZE_INODE {
            self.resize_blocks(inode, &mut map)?;
        } else {
            self.data(inode, &mut map)?;
        }
        self.sizes(inode, &map);
        Ok(())
    }

    /// The inode of bad blocks maps blocks, but is no file.
    fn bad_blocks(&mut self, inode: &Inode) -> Result<()> {
        let empty = inode.i_mode == 0
            && inode.uid == 0
            && inode.gid == 0
            && inode.i_links_count == 0
            && inode.file_acl == 0
            && !inode.has(flags::INLINE_DATA);
        if !empty {
            self.problem(
                "reserved-inode",
                "inode 1: it lists bad blocks, but has other fields as well".into(),
            );
        }
        let mut map = Mapped::of(BAD_INODE, inode);
        self.block_map(inode, &mut map)
    }

    /// Counts what inode 7 maps: what that should be is looked at by
    /// [`Self::resize_inode`], and all but one block is metadata already.
    fn resize_blocks(&mut self, inode: &Inode, map: &mut Mapped) -> Result<()> {
        let double = u64::from(u32_at(&inode.i_block, DOUBLE));
        if !self.sb.has_compat(compat::RESIZE_INODE) || !self.is_inside(double) {
            return self.data(inode, map);
        }
        self.take(RESIZE_INODE, "block map", double);
        let mut outer = self.block_buffer();
        let mut inner = self.block_buffer();
        if !self.read_block(double, &mut outer)? {
            return Ok(());
        }
        map.clusters += 1;
        for raw in outer.chunks_exact(4) {
            let block = u64::from(u32_at(raw, 0));
            if block == 0 {
                continue;
            }
            self.control.check()?;
            if !self.is_inside(block) {
                self.bad_map(map, "block-range", format!("its map names block {block}"));
                return Ok(());
            }
            map.clusters += 1;
            if self.read_block(block, &mut inner)? {
                let named = inner.chunks_exact(4).filter(|raw| u32_at(raw, 0) != 0);
                map.clusters += named.count() as u64;
            }
        }
        Ok(())
    }

    /// Whether inode 7 keeps the blocks for descriptors to come, as the kernel
    /// and resize2fs expect it (`check_resize_inode`).
    pub(super) fn resize_inode(&mut self) -> Result<()> {
        let sb = self.sb;
        if !sb.has_compat(compat::RESIZE_INODE) && sb.s_reserved_gdt_blocks != 0 {
            self.problem(
                "resize-inode",
                "blocks are reserved for descriptors, without the feature resize_inode".into(),
            );
        }
        let inode = match self.fs.inode(RESIZE_INODE) {
            Ok(inode) => inode,
            Err(crate::ext4::read::Fault::Host(error)) => return Err(error),
            Err(crate::ext4::read::Fault::Nonsense(text)) => {
                self.problem("resize-inode", text);
                return Ok(());
            }
        };
        if !sb.has_compat(compat::RESIZE_INODE) {
            if inode.i_block != [0; 60] {
                self.problem(
                    "resize-inode",
                    "inode 7 has blocks, without the feature resize_inode".into(),
                );
            }
            return Ok(());
        }
        if let Some(text) = self.resize_fault(&inode)? {
            self.problem("resize-inode", format!("inode 7: {text}"));
        }
        Ok(())
    }

    fn resize_fault(&mut self, inode: &Inode) -> Result<Option<String>> {
        use crate::ext4::read::geometry::has_superblock;
        let double = u64::from(u32_at(&inode.i_block, DOUBLE));
        let others = inode.i_block[..DOUBLE]
            .iter()
            .chain(&inode.i_block[DOUBLE + 4..]);
        if others.into_iter().any(|byte| *byte != 0)
            || !self.is_inside(double)
            || inode.i_links_count == 0
            || inode.kind() != Some(Kind::Regular)
        {
            return Ok(Some(
                "it is no file with a double indirect block alone".into(),
            ));
        }
        let per_block = self.geometry.block_size / 4;
        let mut outer = self.block_buffer();
        let mut inner = self.block_buffer();
        if !self.read_block(double, &mut outer)? {
            return Ok(None);
        }
        let descs = self.geometry.desc_blocks();
        let first = self.geometry.superblock_block() + 1 + u64::from(descs);
        for number in 0..u32::from(self.sb.s_reserved_gdt_blocks) {
            self.control.check()?;
            let slot = (descs + number) % per_block;
            let expected = first + u64::from(number);
            if u64::from(u32_at(&outer, slot as usize * 4)) != expected {
                return Ok(Some(format!(
                    "it does not name block {expected} for descriptors to come"
                )));
            }
            if !self.read_block(expected, &mut inner)? {
                return Ok(None);
            }
            let mut at = 0;
            for group in (1..self.geometry.groups).filter(|group| has_superblock(self.sb, *group)) {
                let copy = expected + u64::from(group) * u64::from(self.geometry.blocks_per_group);
                if copy >= self.geometry.blocks || at >= inner.len() {
                    break;
                }
                if u64::from(u32_at(&inner, at)) != copy {
                    return Ok(Some(format!(
                        "block {expected} does not name its copy, block {copy}"
                    )));
                }
                at += 4;
            }
        }
        Ok(None)
    }
}
