//! Inodes of the file system itself: where they are, what they say, how they are changed.

use std::ops::Range;

use super::descriptor::Descriptor;
use super::disk::Disk;
use super::fault::unsound;
use super::shape::Shape;
use crate::error::Result;
use crate::ext4::format::{high16, low16, put_u16};
use crate::ext4::read::bytes::u16_at;
use crate::ext4::read::inode::{self, Inode};
use crate::ext4::read::runs::{Blocks, Places};
use crate::ext4::read::superblock::Superblock as Fields;
use crate::ext4::read::{Fault, Read};

/// Where an inode lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) offset: usize,
}

/// Where inode `number` lies.
fn place(disk: &Disk, shape: &Shape, number: u32) -> Result<Place> {
    let bad = || unsound(disk.path(), format!("inode {number} lies outside"));
    let index = number.checked_sub(1).ok_or_else(bad)?;
    let group = index / shape.inodes_per_group;
    if group >= shape.groups {
        return Err(bad());
    }
    let within = u64::from(index % shape.inodes_per_group) * u64::from(shape.inode_size);
    let mut block = read_block(
        disk,
        shape,
        shape.desc_block(group / shape.descs_per_block()),
    )?;
    let at = (group % shape.descs_per_block() * shape.desc_size) as usize;
    let table = Descriptor(&mut block[at..at + shape.desc_size as usize])
        .fields()
        .inode_table;
    Ok(Place {
        block: table
            .checked_add(within / u64::from(shape.block_size))
            .ok_or_else(bad)?,
        // OK to cut: less than a block.
        offset: (within % u64::from(shape.block_size)) as usize,
    })
}

/// A block of the file system, wherever the image says that it is.
pub(super) fn read_block(disk: &Disk, shape: &Shape, block: u64) -> Result<Vec<u8>> {
    if block < u64::from(shape.first_data_block) || block >= shape.blocks {
        return Err(unsound(
            disk.path(),
            format!("block {block} is named, of {}", shape.blocks),
        ));
    }
    disk.read(shape.byte(block), shape.block_size as usize)
}

/// The image as [`crate::ext4::read::runs`] reads it.
struct Source<'a> {
    disk: &'a Disk,
    shape: &'a Shape,
}

impl Blocks for Source<'_> {
    fn block_size(&self) -> u32 {
        self.shape.block_size
    }

    fn all(&self) -> Range<u64> {
        self.shape.first_data_block.into()..self.shape.blocks
    }

    fn block(&self, number: u64) -> Read<Vec<u8>> {
        Ok(read_block(self.disk, self.shape, number)?)
    }
}

/// An inode's place and bytes, if its checksum is right.
pub(super) fn load(
    disk: &Disk,
    shape: &Shape,
    sb: &Fields,
    number: u32,
) -> Result<(Place, Vec<u8>)> {
    let place = place(disk, shape, number)?;
    let block = read_block(disk, shape, place.block)?;
    let raw = block[place.offset..place.offset + shape.inode_size as usize].to_vec();
    if sb.has_checksums() {
        let (stored, computed) = inode::checksums(number, &raw, sb.checksum_seed());
        if stored != computed {
            return Err(unsound(
                disk.path(),
                format!("inode {number} has the checksum {stored:08x}, not {computed:08x}"),
            ));
        }
    }
    Ok((place, raw))
}

/// What an inode says.
pub(super) fn decode(disk: &Disk, raw: &[u8]) -> Result<Inode> {
    Inode::decode(raw).ok_or_else(|| unsound(disk.path(), "inodes are too short".into()))
}

/// Where an inode's blocks are; `number` is for messages.
pub(super) fn places(disk: &Disk, shape: &Shape, number: u32, inode: &Inode) -> Result<Places> {
    Places::of(&Source { disk, shape }, number, inode).map_err(|fault| match fault {
        Fault::Host(error) => error,
        Fault::Nonsense(text) => unsound(disk.path(), text),
    })
}

/// `ext4_inode_csum_set`
pub(super) fn seal(raw: &mut [u8], number: u32, sb: &Fields) {
    if !sb.has_checksums() {
        return;
    }
    let (_, sum) = inode::checksums(number, raw, sb.checksum_seed());
    put_u16(raw, 0x7c, low16(sum)); // l_i_checksum_lo
    if raw.len() > inode::OLD_SIZE && u16_at(raw, 0x80) >= 4 {
        put_u16(raw, 0x82, high16(sum)); // i_checksum_hi
    }
}
