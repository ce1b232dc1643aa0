//! The resize inode, whose blocks are those that are reserved for descriptors.

use super::changes::Changes;
use super::disk::Disk;
use super::fault::unsound;
use super::inode::{self, Place};
use super::shape::Shape;
use crate::error::Result;
use crate::ext4::format::{put_u16, put_u32};
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::inode::{Kind, RESIZE_INODE};
use crate::ext4::read::superblock::Superblock as Fields;

/// `i_block`
const MAP: usize = 0x28;
const MAP_SIZE: usize = 60;
/// Its only block, by place in `i_block`: its entries are the reserved blocks.
const DOUBLE_INDIRECT: usize = 13 * 4;

/// The inode as it was found to be.
pub(super) struct ResizeInode {
    place: Place,
    raw: Vec<u8>,
    /// The block that its map has.
    map: u64,
}

fn primary(shape: &Shape, index: u32) -> u64 {
    u64::from(shape.first_data_block) + 1 + u64::from(index)
}

/// Where the entry of a reserved block is in the map's block.
fn entry(shape: &Shape, index: u32) -> usize {
    (index % (shape.block_size / 4)) as usize * 4
}

/// A reserved block names those of the backups.
fn addresses(shape: &Shape, backups: &[u32], index: u32) -> Option<Vec<u8>> {
    let mut block = vec![0; shape.block_size as usize];
    if backups.len() * 4 > block.len() {
        return None;
    }
    for (number, &group) in backups.iter().enumerate() {
        let copy = u64::from(group) * u64::from(shape.per_group) + primary(shape, index);
        put_u32(&mut block, number * 4, u32::try_from(copy).ok()?);
    }
    Some(block)
}

/// Its `i_blocks`.
fn sectors(shape: &Shape, backups: &[u32]) -> Option<u32> {
    let blocks = 1 + u64::from(shape.reserved) * (1 + backups.len() as u64);
    u32::try_from(blocks * u64::from(shape.block_size / 512)).ok()
}

impl ResizeInode {
    /// Reads it where there is one. It has to keep what the superblock says:
    /// e2fsck compares a quarter of it, and the kernel all (`verify_reserved_gdb`).
    pub(super) fn open(disk: &Disk, shape: &Shape, sb: &Fields) -> Result<Option<Self>> {
        if !shape.resize_inode {
            return Ok(None);
        }
        let bad = |what: &str| {
            let text = format!("the resize inode is senseless ({what})");
            Err(unsound(disk.path(), text))
        };
        let (place, raw) = inode::load(disk, shape, sb, RESIZE_INODE)?;
        let inode = inode::decode(disk, &raw)?;
        if inode.kind() != Some(Kind::Regular)
            || inode.i_links_count == 0
            || inode.i_dtime != 0
            || inode.file_acl != 0
        {
            return bad("it is no file");
        }
        let map = u64::from(u32_at(&inode.i_block, DOUBLE_INDIRECT));
        let mut others = inode.i_block;
        put_u32(&mut others, DOUBLE_INDIRECT, 0);
        if map == 0 || others != [0; MAP_SIZE] {
            return bad("it has not one block");
        }
        let backups = shape.backups();
        if sectors(shape, &backups).map(u64::from) != Some(inode.blocks) {
            return bad("it has another number of blocks");
        }
        let entries = inode::read_block(disk, shape, map)?;
        let first = shape.desc_blocks();
        for index in first..first + shape.reserved {
            let block = primary(shape, index);
            if u64::from(u32_at(&entries, entry(shape, index))) != block
                || addresses(shape, &backups, index) != Some(inode::read_block(disk, shape, block)?)
            {
                return bad("its blocks are not the reserved ones");
            }
        }
        Ok(Some(Self { place, raw, map }))
    }

    /// Makes it keep what is reserved now: descriptors took some, and there are
    /// more backups (the kernel's `add_new_gdb`, `reserve_backup_gdb`). Without
    /// reserved blocks it is emptied, and the block it had is told.
    pub(super) fn update(
        mut self,
        changes: &mut Changes<'_>,
        old: &Shape,
        new: &Shape,
        sb: &Fields,
    ) -> Result<Option<u64>> {
        let backups = new.backups();
        if new.resize_inode && new.reserved == old.reserved && backups == old.backups() {
            return Ok(None);
        }
        let path = changes.disk.path().to_path_buf();
        let far = || unsound(&path, "its reserved blocks are too far or too many".into());
        let freed = if new.resize_inode {
            let taken = new.desc_blocks();
            let entries = changes.load(self.map)?;
            for index in old.desc_blocks()..taken {
                put_u32(entries, entry(new, index), 0);
            }
            for index in taken..taken + new.reserved {
                let block = addresses(new, &backups, index).ok_or_else(far)?;
                changes.replace(primary(new, index), block)?;
            }
            let sectors = sectors(new, &backups).ok_or_else(far)?;
            put_u32(&mut self.raw, 0x1c, sectors); // i_blocks_lo
            None
        } else {
            self.raw[MAP..MAP + MAP_SIZE].fill(0);
            put_u32(&mut self.raw, 0x1c, 0);
            Some(self.map)
        };
        put_u16(&mut self.raw, 0x74, 0); // l_i_blocks_high
        inode::seal(&mut self.raw, RESIZE_INODE, sb);
        let Place { block, offset } = self.place;
        changes.load(block)?[offset..offset + self.raw.len()].copy_from_slice(&self.raw);
        Ok(freed)
    }
}
