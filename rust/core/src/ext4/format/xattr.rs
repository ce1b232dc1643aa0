//! Extended attributes: `struct ext4_xattr_entry` in an inode or in a block
//! with a `struct ext4_xattr_header`, and POSIX ACLs in ext4's own form.

use super::checksum::Checksum;
use super::inode::XATTR_ROOM;
use super::{put_u16, put_u32, BlockSize};
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
/// Bytes for entries and values in an inode.
const INODE_ROOM: usize = XATTR_ROOM - INODE_HEADER_SIZE - TERMINATOR_SIZE;

/// Bytes for entries and values in a block.
const fn block_room(block: BlockSize) -> usize {
    block.size() - BLOCK_HEADER_SIZE - TERMINATOR_SIZE
}

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
    /// Its value lies in an inode of its own, for it does not fit beside.
    outside: Option<ValueId>,
}

/// Names a value that lies in an inode of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// The inode that holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueInode {
    /// Its number.
    pub number: u32,
    /// [`value_hash`] of the value.
    pub hash: u32,
}

/// The hash of a value in an inode of its own (`ext4_xattr_inode_hash`). `seed`
/// is that of the UUID, whether other metadata has checksums or not.
#[must_use]
pub fn value_hash(seed: Checksum, value: &[u8]) -> u32 {
    seed.bytes(value).value()
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
            outside: None,
        })
    }

    fn size(&self) -> usize {
        let value = if self.outside.is_some() {
            0
        } else {
            self.value.len()
        };
        entry_size(self.name.len()) + padded(value)
    }

    /// The value that lies in an inode of its own.
    #[must_use]
    pub fn outside(&self) -> Option<ValueId> {
        self.outside
    }

    /// `ext4_xattr_hash_entry`: over the name's bytes, unsigned, and the
    /// value's padded words, or the hash of a value in an inode of its own.
    fn hash(&self, outside: Option<ValueInode>) -> u32 {
        let named = self
            .name
            .iter()
            .fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        if let Some(inode) = outside {
            return named.rotate_left(16) ^ inode.hash;
        }
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

/// The attributes of one inode, divided between the inode and a block. Both
/// parts are sorted.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// For the inode.
    pub in_inode: Box<[Entry]>,
    /// For the block.
    pub in_block: Box<[Entry]>,
}

impl Packed {
    /// Moves entries whose values lie outside from the inode to the block. They
    /// fit: without their values they are smaller than the inode.
    pub fn outside_to_block(&mut self) {
        let in_inode = std::mem::take(&mut self.in_inode).into_vec();
        let (outside, inside): (Vec<_>, Vec<_>) = in_inode
            .into_iter()
            .partition(|entry| entry.outside.is_some());
        self.in_inode = inside.into();
        let mut block = std::mem::take(&mut self.in_block).into_vec();
        block.extend(outside);
        block.sort();
        self.in_block = block.into();
    }
}

/// Divides them: the largest that fit go into the inode, so that as many sets
/// as possible need no more than a block. While they do not fit, the largest
/// value goes into an inode of its own, for which `keep` gives an id.
pub fn pack(
    mut entries: Vec<Entry>,
    block_size: BlockSize,
    mut keep: impl FnMut(&[u8]) -> ValueId,
) -> Result<Packed, XattrFault> {
    loop {
        if let Some(packed) = divide(&entries, block_size) {
            return Ok(packed);
        }
        let inline = entries.iter_mut().filter(|entry| entry.outside.is_none());
        let largest = inline.max_by_key(|entry| (entry.value.len(), entry.name.clone()));
        match largest {
            Some(entry) if !entry.value.is_empty() => entry.outside = Some(keep(&entry.value)),
            _ => return Err(XattrFault::Room),
        }
    }
}

fn divide(entries: &[Entry], block_size: BlockSize) -> Option<Packed> {
    let mut sorted = entries.to_vec();
    sorted.sort_by_cached_key(|entry| (std::cmp::Reverse(entry.size()), entry.clone()));
    [largest_first, fullest]
        .into_iter()
        .find_map(|choose| split(&sorted, &choose(&sorted), block_size))
}

/// The entries that go into the inode if each goes there that still fits.
fn largest_first(entries: &[Entry]) -> Vec<bool> {
    let mut room = INODE_ROOM;
    let fits = |entry: &Entry| {
        let fits = entry.size() <= room;
        if fits {
            room -= entry.size();
        }
        fits
    };
    entries.iter().map(fits).collect()
}

/// The entries that fill the inode as far as any do: the block can be so full
/// that it takes nothing more, and the kernel, which puts entries where they
/// fit when they are set, has held them all.
fn fullest(entries: &[Entry]) -> Vec<bool> {
    // For each sum of sizes, the entries of which it was made first.
    let mut sums: [Option<Vec<usize>>; INODE_ROOM + 1] = [const { None }; INODE_ROOM + 1];
    sums[0] = Some(Vec::new());
    for (index, entry) in entries.iter().enumerate() {
        let size = entry.size();
        for sum in (size..=INODE_ROOM).rev() {
            if sums[sum].is_none() {
                sums[sum] = sums[sum - size].as_ref().map(|chosen| {
                    let mut chosen = chosen.clone();
                    chosen.push(index);
                    chosen
                });
            }
        }
    }
    let best = sums.into_iter().rev().flatten().next().unwrap_or_default();
    (0..entries.len())
        .map(|index| best.contains(&index))
        .collect()
}

/// Entries divided, unless the block does not hold its part.
fn split(entries: &[Entry], inside: &[bool], block_size: BlockSize) -> Option<Packed> {
    let part = |in_inode: bool| -> Box<[Entry]> {
        let chosen = entries
            .iter()
            .zip(inside)
            .filter(|(_, &one)| one == in_inode);
        let mut part: Vec<_> = chosen.map(|(entry, _)| entry.clone()).collect();
        part.sort();
        part.into()
    };
    let (in_inode, in_block) = (part(true), part(false));
    let bytes: usize = in_block.iter().map(Entry::size).sum();
    (bytes <= block_room(block_size)).then_some(Packed { in_inode, in_block })
}

/// Where entries are written, and what is known of values that lie outside.
struct Writer<'a, F> {
    raw: &'a mut [u8],
    /// Where the next entry goes.
    at: usize,
    /// Where offsets of values are counted from.
    base: usize,
    /// Whether values that lie beside their entries are hashed.
    hashed: bool,
    inode_of: F,
}

impl<F: Fn(ValueId) -> ValueInode> Writer<'_, F> {
    /// Writes entries upwards and their values from the end downwards.
    fn put(&mut self, entries: &[Entry]) {
        let mut value_at = self.raw.len();
        for entry in entries {
            let outside = entry.outside.map(&self.inode_of);
            let raw = &mut *self.raw;
            let at = self.at;
            raw[at] = entry.name_len; // e_name_len
            raw[at + 1] = entry.index; // e_name_index
            put_u32(raw, at + 8, entry.value.len() as u32); // e_value_size
            if self.hashed || outside.is_some() {
                put_u32(raw, at + 12, entry.hash(outside)); // e_hash
            }
            match outside {
                Some(inode) => put_u32(raw, at + 4, inode.number), // e_value_inum
                None if entry.value.is_empty() => {}
                None => {
                    value_at -= padded(entry.value.len());
                    put_u16(raw, at + 2, (value_at - self.base) as u16); // e_value_offs
                    raw[value_at..value_at + entry.value.len()].copy_from_slice(&entry.value);
                }
            }
            raw[at + ENTRY_SIZE..at + ENTRY_SIZE + entry.name.len()].copy_from_slice(&entry.name);
            self.at += entry_size(entry.name.len());
        }
    }
}

/// What [`super::inode::Inode::xattrs`] wants. In the inode, hashes of values
/// that lie beside are 0, as the kernel leaves them there.
#[must_use]
pub fn encode_in_inode(
    entries: &[Entry],
    inode_of: impl Fn(ValueId) -> ValueInode,
) -> Option<Box<[u8]>> {
    if entries.is_empty() {
        return None;
    }
    let mut raw = vec![0; XATTR_ROOM];
    put_u32(&mut raw, 0, MAGIC); // h_magic
    let mut writer = Writer {
        raw: &mut raw,
        at: INODE_HEADER_SIZE,
        base: INODE_HEADER_SIZE,
        hashed: false,
        inode_of,
    };
    writer.put(entries);
    Some(raw.into())
}

/// The block numbered `number`, shared by `references` inodes.
pub fn encode_block(
    raw: &mut [u8],
    entries: &[Entry],
    references: u32,
    number: u64,
    seed: Checksum,
    inode_of: impl Fn(ValueId) -> ValueInode,
) {
    put_u32(raw, 0x00, MAGIC); // h_magic
    put_u32(raw, 0x04, references); // h_refcount
    put_u32(raw, 0x08, 1); // h_blocks
    let hash = entries
        .iter()
        .try_fold(0u32, |hash, entry| {
            match entry.hash(entry.outside.map(&inode_of)) {
                0 => None, // an entry without a hash: the block is not to be shared
                one => Some(hash.rotate_left(16) ^ one),
            }
        })
        .unwrap_or(0);
    put_u32(raw, 0x0c, hash); // h_hash
    let mut writer = Writer {
        raw: &mut *raw,
        at: BLOCK_HEADER_SIZE,
        base: 0,
        hashed: true,
        inode_of,
    };
    writer.put(entries);
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
        let pack = |entries| {
            let mut kept = 0;
            let packed = pack(entries, BlockSize::PAGE, |_| {
                kept += 1;
                ValueId(0)
            });
            packed.map(|packed| (packed.in_inode.len(), packed.in_block.len(), kept))
        };
        assert_eq!(pack(vec![xattr(b"user.a", 68)]), Ok((1, 0, 0)));
        assert_eq!(pack(vec![xattr(b"user.a", 69)]), Ok((0, 1, 0)));
        assert_eq!(pack(vec![xattr(b"user.a", 4040)]), Ok((0, 1, 0)));
        assert_eq!(pack(vec![xattr(b"user.a", 4041)]), Ok((1, 0, 1)));
        let three = ["a", "b", "c"].map(|name| xattr(format!("user.{name}").as_bytes(), 4000));
        assert_eq!(pack(three.to_vec()), Ok((2, 1, 2)));
        let many = (0..400)
            .map(|n| xattr(format!("user.{n}").as_bytes(), 1))
            .collect();
        assert_eq!(pack(many), Err(XattrFault::Room));
    }

    /// The largest one in the inode leaves four bytes free there, which are
    /// too few in the block.
    #[test]
    fn what_fits_in_any_way_fits() {
        // Entries of 24, 24, 20 and 20 bytes: the inode is full.
        let mut all: Vec<_> = [
            (b"user.a", 4),
            (b"user.b", 4),
            (b"user.c", 0),
            (b"user.d", 0),
        ]
        .map(|(name, len)| xattr(name, len))
        .into();
        // 84 and 3976: the block is full.
        all.extend([xattr(b"user.e", 64), xattr(b"user.f", 3956)]);
        let pack = |entries: &[Entry]| {
            pack(entries.to_vec(), BlockSize::PAGE, |_| ValueId(0)).map(|packed| {
                let sizes = [packed.in_inode, packed.in_block]
                    .map(|part| part.iter().map(Entry::size).sum::<usize>());
                (sizes[0], sizes[1])
            })
        };
        assert_eq!(pack(&all), Ok((88, 4060)));
        // One byte more does not fit: the largest value goes elsewhere.
        *all.last_mut().unwrap() = xattr(b"user.f", 3957);
        assert_eq!(pack(&all), Ok((84, 108)));
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
