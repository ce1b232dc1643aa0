//! The extended attributes of an inode of an image.

use super::files::Map;
use crate::ext4::read::bytes::{u16_at, u32_at};
use crate::ext4::read::filesystem::Filesystem;
use crate::ext4::read::inode::{flags, Inode, OLD_SIZE};
use crate::ext4::read::xattr::{self, Header};
use crate::ext4::read::{Fault, Read};
use crate::tree::Xattr;

/// `XATTR_SIZE_MAX`
const MAX_VALUE: u32 = 65_536;

/// What an inode has.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// What `listxattr` tells, POSIX ACLs in the kernel's form.
    pub(super) shown: Vec<Xattr>,
    /// The part of inline data that is behind `i_block` (`system.data`).
    pub(super) inline: Option<Vec<u8>>,
}

/// `raw` is the inode's bytes.
pub(super) fn read(fs: &Filesystem, number: u32, inode: &Inode, raw: &[u8]) -> Read<Attributes> {
    let mut found = Attributes::default();
    let nonsense = |what: &str| Fault::Nonsense(format!("the attributes of inode {number} {what}"));
    let start = OLD_SIZE + usize::from(inode.i_extra_isize);
    let body = raw.get(start..).filter(|_| raw.len() > OLD_SIZE);
    if let Some(body) = body.filter(|body| body.len() >= xattr::INODE_HEADER_SIZE) {
        if u32_at(body, 0) == xattr::MAGIC {
            let entries = &body[xattr::INODE_HEADER_SIZE..];
            area(fs, number, entries, 0, &mut found)?;
        }
    }
    if inode.file_acl != 0 {
        let block = fs.block(inode.file_acl)?;
        let magic = Header::decode(&block).map(|header| header.h_magic);
        if magic != Some(xattr::MAGIC) {
            return Err(nonsense("are in a block that has none"));
        }
        area(fs, number, &block, xattr::BLOCK_HEADER_SIZE, &mut found)?;
    }
    // Those in the inode come first, and hide others of their names.
    found.shown.sort_by(|a, b| a.name.cmp(&b.name));
    found.shown.dedup_by(|next, first| next.name == first.name);
    Ok(found)
}

/// Reads the list that begins at byte `at`; values are told from the begin of
/// `bytes` on.
fn area(
    fs: &Filesystem,
    number: u32,
    bytes: &[u8],
    mut at: usize,
    found: &mut Attributes,
) -> Read<()> {
    let nonsense =
        |what: String| Fault::Nonsense(format!("the attributes of inode {number} {what}"));
    loop {
        let entry = xattr::entry(bytes, at);
        let entry = entry.map_err(|_| nonsense("reach behind their end".into()))?;
        let Some(entry) = entry else { return Ok(()) };
        at += entry.len();
        let size = entry.e_value_size;
        let inline = entry.e_name_index == 7 && entry.name == b"data";
        let Some(prefix) = prefix(entry.e_name_index).or(inline.then_some("")) else {
            continue;
        };
        let value = if entry.e_value_inum != 0 {
            outside(fs, entry.e_value_inum, size)?
        } else {
            let start = usize::from(entry.e_value_offs);
            let value = bytes.get(start..start.saturating_add(size as usize));
            value
                .ok_or_else(|| nonsense("have a value behind their end".into()))?
                .to_vec()
        };
        if inline {
            found.inline = Some(value);
            continue;
        }
        let name: Box<[u8]> = [prefix.as_bytes(), entry.name].concat().into();
        let value = if matches!(entry.e_name_index, 2 | 3) {
            acl(&value).ok_or_else(|| nonsense("have a POSIX ACL of no valid form".into()))?
        } else {
            value.into()
        };
        found.shown.push(Xattr { name, value });
    }
}

/// What stands before the names that programs see (`ext4_xattr_handler_map`;
/// the others have no handler).
const fn prefix(index: u8) -> Option<&'static str> {
    match index {
        1..=4 | 6 => xattr::prefix(index),
        _ => None,
    }
}

/// A value in an inode of its own (`ext4_xattr_inode_get`).
fn outside(fs: &Filesystem, number: u32, size: u32) -> Read<Vec<u8>> {
    let inode = fs.inode(number)?;
    if !inode.has(flags::EA_INODE) || inode.size != u64::from(size) || size > MAX_VALUE {
        return Err(Fault::Nonsense(format!(
            "inode {number} holds no value of an attribute of {size} bytes"
        )));
    }
    let mut value = vec![0; size as usize];
    Map::of(fs, number, &inode)?.read(fs, 0, &mut value)?;
    Ok(value)
}

/// From ext4's form (version 1: without an id where the tag needs none) to the
/// one that `getxattr` tells (version 2: tag, perm, id, 8 bytes each). See
/// `ext4_acl_from_disk` and `posix_acl_to_xattr`.
fn acl(disk: &[u8]) -> Option<Box<[u8]>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const WITHOUT_ID: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
    let (version, mut entries) = disk.split_at_checked(4)?;
    if version != 1u32.to_le_bytes() {
        return None;
    }
    let mut value = 2u32.to_le_bytes().to_vec();
    while !entries.is_empty() {
        let tag = u16_at(entries.get(..4)?, 0);
        let len = match tag {
            USER | GROUP => 8,
            _ if WITHOUT_ID.contains(&tag) => 4,
            _ => return None,
        };
        let (entry, rest) = entries.split_at_checked(len)?;
        value.extend_from_slice(entry);
        if len == 4 {
            // ACL_UNDEFINED_ID
            value.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        entries = rest;
    }
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_other_forms_are_refused() {
        let list = |bytes: &[u8]| acl(bytes).map(|value| value.to_vec());
        let good = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xe8, 3, 0, 0];
        let kernel = [
            2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 4, 0, 0xe8, 3, 0, 0,
        ];
        assert_eq!(list(&good), Some(kernel.to_vec()));
        assert_eq!(list(&good[..15]), None);
        assert_eq!(list(&good[..3]), None);
        assert_eq!(list(&[2, 0, 0, 0]), None);
        assert_eq!(list(&[1, 0, 0, 0, 3, 0, 0, 0]), None);
        assert_eq!(list(&[1, 0, 0, 0, 8]), None);
    }
}
