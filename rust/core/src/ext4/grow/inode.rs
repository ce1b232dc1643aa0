//! The two inodes of the file system itself that growing has to do with.

use std::ops::Range;

use super::changes::Changes;
use super::descriptor::Descriptor;
use super::disk::Disk;
use super::fault::unsound;
use super::shape::Shape;
use crate::error::Result;
use crate::ext4::format::{high16, low16, put_u16, put_u32};
use crate::ext4::read::bytes::{u16_at, u32_at};
use crate::ext4::read::inode::{self, Inode, RESIZE_INODE};
use crate::ext4::read::runs::{Blocks, Places};
use crate::ext4::read::superblock::Superblock as Fields;
use crate::ext4::read::{Fault, Read};

/// `i_block`
const MAP: Range<usize> = 0x28..0x64;

/// Where an inode lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) offset: usize,
}

/// Where inode `number` lies.
pub(super) fn place(disk: &Disk, shape: &Shape, number: u32) -> Result<Place> {
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

/// Where the blocks of inode `number` are.
pub(super) fn places(disk: &Disk, shape: &Shape, sb: &Fields, number: u32) -> Result<Places> {
    let bad = |text: String| unsound(disk.path(), text);
    let place = place(disk, shape, number)?;
    let raw = load(
        &read_block(disk, shape, place.block)?,
        &place,
        number,
        shape,
        sb,
    )
    .map_err(bad)?;
    let inode = Inode::decode(&raw).ok_or_else(|| bad(format!("inode {number} is too short")))?;
    match Places::of(&Source { disk, shape }, number, &inode) {
        Ok(places) => Ok(places),
        Err(Fault::Host(error)) => Err(error),
        Err(Fault::Nonsense(text)) => Err(bad(text)),
    }
}

/// An inode's bytes out of the block that has it, when its checksum is right.
fn load(
    block: &[u8],
    place: &Place,
    number: u32,
    shape: &Shape,
    sb: &Fields,
) -> std::result::Result<Vec<u8>, String> {
    let raw = block[place.offset..place.offset + shape.inode_size as usize].to_vec();
    if sb.has_checksums() {
        let (stored, computed) = inode::checksums(number, &raw, sb.checksum_seed());
        if stored != computed {
            return Err(format!(
                "inode {number} has the checksum {stored:08x}, not {computed:08x}"
            ));
        }
    }
    Ok(raw)
}

/// Its only block: the one whose entries are the reserved blocks.
const DOUBLE_INDIRECT: usize = 0x28 + 13 * 4;

/// Makes the resize inode keep what is reserved now: descriptors took some, and
/// there are more backups (the kernel's `add_new_gdb`, `reserve_backup_gdb`).
/// Without reserved blocks it is emptied, and the block it had is told.
pub(super) fn update_resize_inode(
    changes: &mut Changes<'_>,
    old: &Shape,
    new: &Shape,
    sb: &Fields,
) -> Result<Option<u64>> {
    let backups = new.backups();
    let kept = new.resize_inode && new.reserved == old.reserved && backups == old.backups();
    if !old.resize_inode || kept {
        return Ok(None);
    }
    let path = changes.disk.path().to_path_buf();
    let bad = |what: &str| unsound(&path, format!("the resize inode is senseless ({what})"));
    let place = place(changes.disk, old, RESIZE_INODE)?;
    let mut inode = load(changes.load(place.block)?, &place, RESIZE_INODE, old, sb)
        .map_err(|text| unsound(&path, text))?;
    let map = u64::from(u32_at(&inode, DOUBLE_INDIRECT));
    if map == 0 {
        return Err(bad("it has no block"));
    }
    let per = old.block_size / 4;
    let map_block = changes.load(map)?.clone();
    let at = |index: u32| (index % per) as usize * 4;
    let primary = |index: u32| u64::from(old.first_data_block) + 1 + u64::from(index);
    let first = old.desc_blocks();
    for index in first..first + old.reserved {
        if u64::from(u32_at(&map_block, at(index))) != primary(index) {
            return Err(bad("its blocks are not the reserved ones"));
        }
    }

    let freed = if new.resize_inode {
        let taken = new.desc_blocks();
        let entries = changes.load(map)?;
        for index in first..taken {
            put_u32(entries, at(index), 0);
        }
        for index in taken..taken + new.reserved {
            let mut block = vec![0; new.block_size as usize];
            for (number, &group) in backups.iter().enumerate() {
                let copy = u64::from(group) * u64::from(new.per_group) + primary(index);
                let copy = u32::try_from(copy).map_err(|_| bad("its blocks are too far"))?;
                if number >= per as usize {
                    return Err(bad("there are too many backups"));
                }
                put_u32(&mut block, number * 4, copy);
            }
            changes.replace(primary(index), block)?;
        }
        let blocks = 1 + u64::from(new.reserved) * (1 + backups.len() as u64);
        let sectors = blocks * u64::from(new.block_size / 512);
        let sectors = u32::try_from(sectors).map_err(|_| bad("it has too many blocks"))?;
        put_u32(&mut inode, 0x1c, sectors); // i_blocks_lo
        None
    } else {
        inode[MAP].fill(0);
        put_u32(&mut inode, 0x1c, 0);
        changes.forget(map);
        Some(map)
    };
    put_u16(&mut inode, 0x74, 0); // l_i_blocks_high
    seal(&mut inode, RESIZE_INODE, sb);
    changes.load(place.block)?[place.offset..place.offset + inode.len()].copy_from_slice(&inode);
    Ok(freed)
}

/// `ext4_inode_csum_set`
fn seal(raw: &mut [u8], number: u32, sb: &Fields) {
    if !sb.has_checksums() {
        return;
    }
    let (_, sum) = inode::checksums(number, raw, sb.checksum_seed());
    put_u16(raw, 0x7c, low16(sum)); // l_i_checksum_lo
    if raw.len() > inode::OLD_SIZE && u16_at(raw, 0x80) >= 4 {
        put_u16(raw, 0x82, high16(sum)); // i_checksum_hi
    }
}
