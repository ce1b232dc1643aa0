//! Extended attributes: `struct ext4_xattr_entry` in an inode or in a block
//! with a `struct ext4_xattr_header`, and POSIX ACLs in ext4's own form.

use super::checksum::Checksum;
use super::inode::XATTR_ROOM;
use super::{put_u16, put_u32, BLOCK_SIZE};
use crate::tree::Xattr;

/// How many inodes may share a block of attributes
/// (`EXT4_XATTR_REFCOUNT_MAX`).
pub const REFCOUNT_MAX: u32 = 1024;

const MAGIC: u32 = 0xea02_0000;
const ENTRY_SIZE: usize = 16;
/// Four zero bytes end the list of entries.
const TERMINATOR_SIZE: usize = 4;
const BLOCK_HEADER_SIZE: usize = 32;
const INODE_HEADER_SIZE: usize = 4;
/// Bytes for entries and values in a block.
const BLOCK_ROOM: usize = BLOCK_SIZE as usize - BLOCK_HEADER_SIZE - TERMINATOR_SIZE;
/// Bytes for entries and values in an inode.
const INODE_ROOM: usize = XATTR_ROOM - INODE_HEADER_SIZE - TERMINATOR_SIZE;

/// Why an attribute cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrFault {
    /// ext4 has no number for that prefix.
    Prefix,
    /// The name behind the prefix is empty or longer than 255 bytes.
    Name,
    /// The value is no POSIX ACL of version 2.
    Acl,
    /// All attributes of the inode together do not fit.
    Room,
}

/// An attribute as ext4 keeps it. Ordered as the kernel searches a block:
/// prefix, length of the name, name (`ext4_xattr_find_entry`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    index: u8,
    name_len: u8,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Entry {
    /// Translates an attribute of the merged tree.
    pub fn new(xattr: &Xattr) -> Result<Self, XattrFault> {
        let (index, name) = split_name(&xattr.name)?;
        let value = match index {
            ACL_ACCESS | ACL_DEFAULT => acl_to_disk(&xattr.value).ok_or(XattrFault::Acl)?,
            _ => xattr.value.clone(),
        };
        let name_len = u8::try_from(name.len()).map_err(|_| XattrFault::Name)?;
        if name.is_empty() && !matches!(index, ACL_ACCESS | ACL_DEFAULT) {
            return Err(XattrFault::Name);
        }
        Ok(Self {
            index,
            name_len,
            name: name.into(),
            value,
        })
    }

    fn size(&self) -> usize {
        entry_size(self.name.len()) + padded(self.value.len())
    }

    /// `ext4_xattr_hash_entry`: over the name's bytes, unsigned, and the
    /// value's padded words.
    fn hash(&self) -> u32 {
        let named = self
            .name
            .iter()
            .fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        self.value.chunks(4).fold(named, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;

/// `ext4_xattr_handler_map` and `EXT4_XATTR_INDEX_*`.
fn split_name(full: &[u8]) -> Result<(u8, &[u8]), XattrFault> {
    match full {
        b"system.posix_acl_access" => return Ok((ACL_ACCESS, b"")),
        b"system.posix_acl_default" => return Ok((ACL_DEFAULT, b"")),
        _ => {}
    }
    let prefixes: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    prefixes
        .into_iter()
        .find_map(|(prefix, index)| Some((index, full.strip_prefix(prefix)?)))
        .ok_or(XattrFault::Prefix)
}

const fn padded(len: usize) -> usize {
    (len + 3) & !3
}

const fn entry_size(name_len: usize) -> usize {
    padded(ENTRY_SIZE + name_len)
}

/// The attributes of one inode, divided between the inode and a block.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// For the inode: what [`super::inode::Inode::xattrs`] wants.
    pub in_inode: Option<Box<[u8]>>,
    /// For the block, sorted.
    pub in_block: Option<Box<[Entry]>>,
}

/// Divides them: the largest that fit go into the inode, so that as many sets
/// as possible need no more than a block.
pub fn pack(mut entries: Vec<Entry>) -> Result<Packed, XattrFault> {
    entries.sort_by_cached_key(|entry| (std::cmp::Reverse(entry.size()), entry.clone()));
    let mut room = INODE_ROOM;
    let (mut inside, mut outside): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
        let fits = entry.size() <= room;
        if fits {
            room -= entry.size();
        }
        fits
    });
    if outside.iter().map(Entry::size).sum::<usize>() > BLOCK_ROOM {
        return Err(XattrFault::Room);
    }
    inside.sort();
    outside.sort();
    Ok(Packed {
        in_inode: (!inside.is_empty()).then(|| encode_in_inode(&inside)),
        in_block: (!outside.is_empty()).then(|| outside.into()),
    })
}

/// Writes entries from `start` and their values from the end of `raw`
/// downwards. Offsets of values count from `base`.
fn put_entries(raw: &mut [u8], start: usize, base: usize, entries: &[Entry], hashed: bool) {
    let mut at = start;
    let mut value_at = raw.len();
    for entry in entries {
        value_at -= padded(entry.value.len());
        let offset = if entry.value.is_empty() {
            0
        } else {
            value_at - base
        };
        raw[at] = entry.name_len; // e_name_len
        raw[at + 1] = entry.index; // e_name_index
        put_u16(raw, at + 2, offset as u16); // e_value_offs
        put_u32(raw, at + 8, entry.value.len() as u32); // e_value_size
        if hashed {
            put_u32(raw, at + 12, entry.hash()); // e_hash
        }
        raw[at + ENTRY_SIZE..at + ENTRY_SIZE + entry.name.len()].copy_from_slice(&entry.name);
        raw[value_at..value_at + entry.value.len()].copy_from_slice(&entry.value);
        at += entry_size(entry.name.len());
    }
}

/// In the inode, hashes are 0, as the kernel leaves them there.
fn encode_in_inode(entries: &[Entry]) -> Box<[u8]> {
    let mut raw = vec![0; XATTR_ROOM];
    put_u32(&mut raw, 0, MAGIC); // h_magic
    put_entries(
        &mut raw,
        INODE_HEADER_SIZE,
        INODE_HEADER_SIZE,
        entries,
        false,
    );
    raw.into()
}

/// The block numbered `number`, shared by `references` inodes.
pub fn encode_block(
    raw: &mut [u8],
    entries: &[Entry],
    references: u32,
    number: u64,
    seed: Checksum,
) {
    put_u32(raw, 0x00, MAGIC); // h_magic
    put_u32(raw, 0x04, references); // h_refcount
    put_u32(raw, 0x08, 1); // h_blocks
    let hash = entries
        .iter()
        .try_fold(0u32, |hash, entry| match entry.hash() {
            0 => None, // an entry without a hash: the block is not to be shared
            one => Some(hash.rotate_left(16) ^ one),
        })
        .unwrap_or(0);
    put_u32(raw, 0x0c, hash); // h_hash
    put_entries(raw, BLOCK_HEADER_SIZE, 0, entries, true);
    // h_checksum: over the block's number and the block with 0 in its place.
    let checksum = seed.u64(number).bytes(raw).value();
    put_u32(raw, 0x10, checksum);
}

/// From the form `getxattr` tells (version 2: tag, perm, id, 8 bytes each) to
/// ext4's (version 1: without an id where the tag needs none). `None` when it
/// is no such list. See `ext4_acl_to_disk`.
fn acl_to_disk(value: &[u8]) -> Option<Box<[u8]>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const WITHOUT_ID: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
    let (version, entries) = value.split_at_checked(4)?;
    if version != 2u32.to_le_bytes() || entries.len() % 8 != 0 {
        return None;
    }
    let mut disk = Vec::with_capacity(value.len());
    disk.extend_from_slice(&1u32.to_le_bytes()); // a_version
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        match tag {
            USER | GROUP => disk.extend_from_slice(entry),
            _ if WITHOUT_ID.contains(&tag) => disk.extend_from_slice(&entry[..4]),
            _ => return None,
        }
    }
    Some(disk.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattr(name: &[u8], len: usize) -> Entry {
        Entry::new(&Xattr {
            name: name.into(),
            value: vec![7; len].into(),
        })
        .unwrap()
    }

    /// The limits found by experiment on the kernel (overlay_semantics 2.11).
    #[test]
    fn limits_are_the_kernels() {
        let packed = pack(vec![xattr(b"user.a", 68)]).unwrap();
        assert!(packed.in_inode.is_some() && packed.in_block.is_none());
        let packed = pack(vec![xattr(b"user.a", 69)]).unwrap();
        assert!(packed.in_inode.is_none() && packed.in_block.is_some());
        assert!(pack(vec![xattr(b"user.a", 4040)]).is_ok());
        assert_eq!(
            pack(vec![xattr(b"user.a", 4041)]).unwrap_err(),
            XattrFault::Room
        );
    }

    #[test]
    fn acl_loses_the_ids_it_does_not_need() {
        let mut v2 = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in [(1u16, 7u16, u32::MAX), (2, 5, 1000), (0x20, 0, u32::MAX)] {
            v2.extend_from_slice(&tag.to_le_bytes());
            v2.extend_from_slice(&perm.to_le_bytes());
            v2.extend_from_slice(&id.to_le_bytes());
        }
        let disk = acl_to_disk(&v2).unwrap();
        assert_eq!(
            &*disk,
            &[1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 5, 0, 232, 3, 0, 0, 0x20, 0, 0, 0]
        );
        assert!(acl_to_disk(&v2[..v2.len() - 1]).is_none());
        assert!(acl_to_disk(&[1, 0, 0, 0]).is_none());
        assert!(acl_to_disk(&[]).is_none());
    }

    #[test]
    fn prefixes_without_a_number_are_refused() {
        for name in [&b"btrfs.compression"[..], b"system.nfs4_acl", b"user", b""] {
            assert_eq!(split_name(name), Err(XattrFault::Prefix));
        }
        let empty = Xattr {
            name: (*b"user.").into(),
            value: Box::default(),
        };
        assert_eq!(Entry::new(&empty).unwrap_err(), XattrFault::Name);
    }
}
