//! Data in the inode itself: `i_block`, and the rest in an attribute.

use super::attributes::in_inode;
use super::Deep;
use crate::error::Result;
use crate::ext4::read::inode::{flags, Inode, Kind};
use crate::ext4::read::xattr::{self, INODE_HEADER_SIZE};

/// Bytes in `i_block` (`EXT4_MIN_INLINE_DATA_SIZE`).
pub(super) const IN_BLOCK: usize = 60;
/// `EXT4_XATTR_INDEX_SYSTEM`
const SYSTEM: u8 = 7;

impl Deep<'_> {
    /// The rest of inline data, behind `i_block`: the attribute system.data.
    /// `None` when there is none, or when any of the attributes is one that
    /// keeps e2fsck from reading them (`read_xattrs_from_buffer`).
    pub(super) fn inline_rest<'r>(raw: &'r [u8], inode: &Inode) -> Option<&'r [u8]> {
        let area = in_inode(raw, inode).filter(|_| inode.i_extra_isize != 0)?;
        let values = &area[INODE_HEADER_SIZE..];
        let mut found = None;
        let mut at = INODE_HEADER_SIZE;
        while let Ok(Some(entry)) = xattr::entry(area, at) {
            if entry.e_value_inum == 0 {
                let begin = usize::from(entry.e_value_offs);
                let end = begin.checked_add(entry.e_value_size as usize)?;
                // Also of those without a byte.
                let value = values.get(begin..end)?;
                if entry.e_name_index == SYSTEM && entry.name == b"data" {
                    found = found.or(Some(value));
                }
            }
            at += entry.len();
        }
        found
    }

    /// `ext2fs_inline_data_size`
    pub(super) fn inline_size(&self, raw: &[u8], inode: &Inode) -> Option<u64> {
        Self::inline_rest(raw, inode).map(|rest| (IN_BLOCK + rest.len()) as u64)
    }

    pub(super) fn inline(&mut self, number: u32, inode: &Inode, raw: &[u8]) -> Result<()> {
        if !inode.has(flags::INLINE_DATA) {
            return Ok(());
        }
        match self.inline_size(raw, inode) {
            None => self.problem(
                "inline-data",
                format!("inode {number}: it has inline data, but no attribute for it"),
            ),
            Some(size) if inode.kind() == Some(Kind::Directory) && size != inode.size => self
                .problem(
                    "inode-size",
                    format!(
                        "inode {number}: it is a directory of {} bytes, with {size} inline",
                        inode.size
                    ),
                ),
            Some(_) => {}
        }
        Ok(())
    }
}
