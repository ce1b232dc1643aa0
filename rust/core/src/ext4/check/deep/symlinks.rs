//! Symlinks: the target in the inode, in a block, or as inline data.

use super::Deep;
use crate::error::Result;
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::extent::{extent, Header};
use crate::ext4::read::inode::{flags, Inode, Kind};

impl Deep<'_> {
    /// `e2fsck_pass1_check_symlink`
    pub(super) fn symlink(&mut self, number: u32, inode: &Inode, raw: &[u8]) -> Result<()> {
        let bad = self.symlink_fault(number, inode, raw)?;
        if let Some(text) = bad {
            self.problem("symlink", format!("inode {number}: it is a symlink {text}"));
        }
        if Self::is_inline_symlink(inode) && inode.file_acl != 0 {
            self.problem(
                "symlink",
                format!("inode {number}: it is a symlink with inline data and a block of attributes, which e2fsck takes for free"),
            );
        }
        if inode.has(flags::IMMUTABLE | flags::APPEND) {
            self.problem(
                "inode-flags",
                format!(
                    "inode {number}: it is a symlink with the flags 0x{:x}",
                    inode.i_flags
                ),
            );
        }
        if inode.has(flags::EXTENTS) && !Self::maps_blocks(inode) {
            self.problem(
                "inode-flags",
                format!("inode {number}: it is a symlink with the target inside, and has the flag of extents"),
            );
        }
        Ok(())
    }

    fn symlink_fault(&mut self, number: u32, inode: &Inode, raw: &[u8]) -> Result<Option<String>> {
        if inode.size == 0 || inode.size >> 32 != 0 {
            return Ok(Some(format!("of {} bytes", inode.size)));
        }
        if inode.has(flags::INLINE_DATA) {
            let len = self.inline_size(raw, inode);
            return Ok((len != Some(inode.size)).then(|| {
                format!(
                    "of {} bytes, but that is not the size of its inline data",
                    inode.size
                )
            }));
        }
        let mut block = self.block_buffer();
        let target = if inode.size < 60 {
            &inode.i_block[..]
        } else {
            let Some(first) = self.symlink_block(number, inode) else {
                return Ok(Some("whose target is not in one block".into()));
            };
            if !self.read_block(first, &mut block)? {
                return Ok(None);
            }
            &block[..]
        };
        let len = if inode.has(flags::ENCRYPT) {
            usize::from(u16::from_le_bytes([target[0], target[1]])) + 2
        } else {
            target
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(target.len())
        };
        Ok((len >= target.len() || len as u64 != inode.size)
            .then(|| format!("of {} bytes, but its target has {len}", inode.size)))
    }

    /// The one block of a symlink that is too long for the inode.
    fn symlink_block(&self, _number: u32, inode: &Inode) -> Option<u64> {
        let block = if inode.has(flags::EXTENTS) {
            let header = Header::decode(&inode.i_block)?;
            let found = extent(&inode.i_block, 0)?;
            let one = Self::is_extent_header(&header, 60)
                && header.eh_entries == 1
                && header.eh_depth == 0
                && found.logical == 0
                && found.len == 1;
            one.then_some(found.physical)?
        } else {
            let others = inode.i_block[4..].iter().all(|byte| *byte == 0);
            others.then(|| u32_at(&inode.i_block, 0).into())?
        };
        self.is_inside(block).then_some(block)
    }

    /// Those that e2fsck leaves before it counts blocks, and so no quota has
    /// them; mke2fs makes such, the kernel none.
    pub(super) fn is_inline_symlink(inode: &Inode) -> bool {
        inode.kind() == Some(Kind::Symlink) && inode.has(flags::INLINE_DATA)
    }
}
