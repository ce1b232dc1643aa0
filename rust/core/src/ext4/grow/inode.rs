//! The two inodes of the file system itself that growing has to do with.

use super::changes::Changes;
use super::descriptor::Descriptor;
use super::disk::Disk;
use super::fault::unsound;
use super::shape::Shape;
use super::superblock::Superblock;
use crate::error::Result;
use crate::ext4::format::{high16, low16, put_u16, put_u32};
use crate::ext4::read::bytes::{u16_at, u32_at};

const EXTENTS_FLAG: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
/// `i_block`
const MAP: std::ops::Range<usize> = 0x28..0x64;
/// The kernel takes no deeper tree (`EXT4_MAX_EXTENT_DEPTH`).
const MAX_DEPTH: u16 = 5;

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
    let table = Descriptor(&mut block[at..at + shape.desc_size as usize]).inode_table();
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

/// How a file's blocks are mapped.
#[derive(Debug)]
pub(super) struct Map<'a> {
    disk: &'a Disk,
    shape: &'a Shape,
    root: Vec<u8>,
    extents: bool,
}

impl<'a> Map<'a> {
    /// That of inode `number`.
    pub(super) fn of(disk: &'a Disk, shape: &'a Shape, number: u32) -> Result<Self> {
        let place = place(disk, shape, number)?;
        let block = read_block(disk, shape, place.block)?;
        let inode = &block[place.offset..place.offset + 128];
        Ok(Self {
            disk,
            shape,
            root: inode[MAP].to_vec(),
            extents: u32_at(inode, 0x20) & EXTENTS_FLAG != 0,
        })
    }

    /// The block with the file's block `logical`; `None` in a hole.
    pub(super) fn find(&self, logical: u32) -> Result<Option<u64>> {
        if self.extents {
            self.in_extents(logical)
        } else {
            self.in_indirect(logical)
        }
    }

    fn in_extents(&self, logical: u32) -> Result<Option<u64>> {
        let mut node = self.root.clone();
        let mut last = None;
        loop {
            let (count, depth) = (usize::from(u16_at(&node, 2)), u16_at(&node, 6));
            let falling = last.is_none_or(|last: u16| depth.checked_add(1) == Some(last));
            if u16_at(&node, 0) != EXTENT_MAGIC
                || 12 + count * 12 > node.len()
                || depth > MAX_DEPTH
                || !falling
            {
                return Err(unsound(
                    self.disk.path(),
                    "a tree of extents is senseless".into(),
                ));
            }
            last = Some(depth);
            let entry = (1..=count)
                .map(|number| &node[number * 12..number * 12 + 12])
                .take_while(|entry| u32_at(entry, 0) <= logical)
                .last();
            let Some(entry) = entry else { return Ok(None) };
            if depth == 0 {
                let within = logical - u32_at(entry, 0);
                let start = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
                let len = u32::from(u16_at(entry, 4));
                return Ok((within < len && len <= 32768).then(|| start + u64::from(within)));
            }
            let below = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
            node = read_block(self.disk, self.shape, below)?;
        }
    }

    fn in_indirect(&self, logical: u32) -> Result<Option<u64>> {
        let per = u64::from(self.shape.block_size / 4);
        let mut rest = u64::from(logical);
        if rest < 12 {
            return Ok(nonzero(u32_at(&self.root, rest as usize * 4)));
        }
        rest -= 12;
        for level in 0u32..3 {
            let mut span = per.pow(level + 1);
            if rest >= span {
                rest -= span;
                continue;
            }
            let mut at = u32_at(&self.root, (12 + level as usize) * 4);
            for _ in 0..=level {
                if at == 0 {
                    return Ok(None);
                }
                span /= per;
                let block = read_block(self.disk, self.shape, u64::from(at))?;
                at = u32_at(&block, (rest / span) as usize * 4);
                rest %= span;
            }
            return Ok(nonzero(at));
        }
        Ok(None)
    }
}

fn nonzero(block: u32) -> Option<u64> {
    (block != 0).then_some(u64::from(block))
}

/// The resize inode's number.
const RESIZE_INODE: u32 = 7;
/// Its only block: the one whose entries are the reserved blocks.
const DOUBLE_INDIRECT: usize = 0x28 + 13 * 4;

/// Makes the resize inode keep what is reserved now: descriptors took some, and
/// there are more backups (the kernel's `add_new_gdb`, `reserve_backup_gdb`).
/// Without reserved blocks it is emptied, and the block it had is told.
pub(super) fn update_resize_inode(
    changes: &mut Changes<'_>,
    old: &Shape,
    new: &Shape,
    sb: &Superblock,
) -> Result<Option<u64>> {
    let backups = new.backups();
    let kept = new.resize_inode && new.reserved == old.reserved && backups == old.backups();
    if !old.resize_inode || kept {
        return Ok(None);
    }
    let path = changes.disk.path().to_path_buf();
    let bad = |what: &str| unsound(&path, format!("the resize inode is senseless ({what})"));
    let place = place(changes.disk, old, RESIZE_INODE)?;
    let size = old.inode_size as usize;
    let inode = changes.load(place.block)?[place.offset..place.offset + size].to_vec();
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

    let mut inode = inode;
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
    changes.load(place.block)?[place.offset..place.offset + size].copy_from_slice(&inode);
    Ok(freed)
}

/// `ext4_inode_csum_set`
fn seal(inode: &mut [u8], number: u32, sb: &Superblock) {
    let seed = sb.seed();
    if !seed.is_on() {
        return;
    }
    let wide = inode.len() > 128 && u16_at(inode, 0x80) >= 4;
    put_u16(inode, 0x7c, 0); // l_i_checksum_lo
    if wide {
        put_u16(inode, 0x82, 0); // i_checksum_hi
    }
    let generation = u32_at(inode, 0x64);
    let sum = seed.for_inode(number, generation).bytes(inode).value();
    put_u16(inode, 0x7c, low16(sum));
    if wide {
        put_u16(inode, 0x82, high16(sum));
    }
}
