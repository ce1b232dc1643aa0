//! An opened file system: what is needed to find an inode or a block in it.

use std::path::Path;

use super::geometry::Geometry;
use super::group_desc::{Group, Sums};
use super::image::Image;
use super::inode::Inode;
use super::superblock::{Superblock, MAGIC, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use super::{Fault, Read};

/// An opened file system whose superblock makes sense. Nothing else of it was
/// looked at.
#[derive(Debug)]
pub struct Filesystem {
    /// The file.
    pub image: Image,
    /// Its superblock.
    pub sb: Superblock,
    /// Where things are.
    pub geometry: Geometry,
    /// The kind of its checksums.
    pub sums: Sums,
}

impl Filesystem {
    /// Opens a file or a block device.
    ///
    /// # Errors
    /// When it is neither, cannot be read, or has no ext4 of known layout.
    pub fn open(path: &Path) -> Read<Self> {
        let image = Image::open(path)?;
        let nonsense = |text: String| Fault::Nonsense(format!("{}: {text}", path.display()));
        let mut raw = [0; SUPERBLOCK_SIZE];
        if !image.read(SUPERBLOCK_OFFSET, &mut raw)? {
            return Err(nonsense("too short for an ext4".into()));
        }
        let sb = Superblock::decode(&raw);
        if sb.s_magic != MAGIC {
            return Err(nonsense("no ext2, ext3 or ext4".into()));
        }
        let mut reasons = Vec::new();
        let geometry = Geometry::of(&sb, image.size(), |_, text| reasons.push(text));
        let geometry = geometry.ok_or_else(|| nonsense(reasons.join("; ")))?;
        Ok(Self {
            sums: Sums::of(&sb),
            image,
            sb,
            geometry,
        })
    }

    /// Takes the superblock anew, after a journal was replayed.
    ///
    /// # Errors
    /// When the new one makes no sense.
    pub fn reopen(&mut self) -> Read<()> {
        let mut raw = [0; SUPERBLOCK_SIZE];
        let nonsense =
            |text: String| Fault::Nonsense(format!("the superblock that its journal has: {text}"));
        if !self.image.read(SUPERBLOCK_OFFSET, &mut raw)? {
            return Err(nonsense("it is behind the end".into()));
        }
        let sb = Superblock::decode(&raw);
        if sb.s_magic != MAGIC {
            return Err(nonsense("it has another magic number".into()));
        }
        let mut reasons = Vec::new();
        let geometry = Geometry::of(&sb, self.image.size(), |_, text| reasons.push(text));
        self.geometry = geometry.ok_or_else(|| nonsense(reasons.join("; ")))?;
        self.sums = Sums::of(&sb);
        self.sb = sb;
        Ok(())
    }

    /// A block's bytes.
    ///
    /// # Errors
    /// When the file system or the file ends before.
    pub fn block(&self, number: u64) -> Read<Vec<u8>> {
        let mut block = vec![0; self.geometry.block_size as usize];
        self.read_block(number, &mut block)?;
        Ok(block)
    }

    /// Fills `buffer`, of at most a block, from a block's begin on.
    ///
    /// # Errors
    /// See [`Self::block`].
    pub fn read_block(&self, number: u64, buffer: &mut [u8]) -> Read<()> {
        let inside = number < self.geometry.blocks;
        if inside && self.image.read(self.geometry.byte(number), buffer)? {
            return Ok(());
        }
        Err(Fault::Nonsense(format!("block {number} is behind the end")))
    }

    /// The descriptor of a group.
    ///
    /// # Errors
    /// When there is no such group, or its descriptor is behind the end.
    pub fn group(&self, group: u32) -> Read<Group> {
        if group >= self.geometry.groups {
            return Err(Fault::Nonsense(format!("there is no group {group}")));
        }
        let per_block = self.geometry.descs_per_block();
        let block = self.geometry.desc_block(&self.sb, group / per_block);
        let size = usize::from(self.geometry.desc_size);
        let block = self.block(block)?;
        let at = (group % per_block) as usize * size;
        Ok(Group::decode(&block[at..at + size]))
    }

    /// The bytes of an inode, whether it is in use or not.
    ///
    /// # Errors
    /// When there is no such inode, or its table is not inside the file system.
    pub fn raw_inode(&self, number: u32) -> Read<Vec<u8>> {
        let index = number
            .checked_sub(1)
            .filter(|index| *index < self.sb.s_inodes_count)
            .ok_or_else(|| Fault::Nonsense(format!("there is no inode {number}")))?;
        let per_group = self.geometry.inodes_per_group;
        let group = self.group(index / per_group)?;
        let size = u64::from(self.geometry.inode_size);
        let end = group
            .inode_table
            .checked_add(u64::from(self.geometry.table_blocks));
        if end.is_none_or(|end| end > self.geometry.blocks) {
            return Err(Fault::Nonsense(format!(
                "the inode table of group {} is behind the end",
                index / per_group
            )));
        }
        let at = self.geometry.byte(group.inode_table) + u64::from(index % per_group) * size;
        let mut raw = vec![0; self.geometry.inode_size.into()];
        if !self.image.read(at, &mut raw)? {
            return Err(Fault::Nonsense(format!(
                "inode {number} is behind the end of the file"
            )));
        }
        Ok(raw)
    }

    /// An inode, whether it is in use or not.
    ///
    /// # Errors
    /// See [`Self::raw_inode`].
    pub fn inode(&self, number: u32) -> Read<Inode> {
        let raw = self.raw_inode(number)?;
        Inode::decode(&raw).ok_or_else(|| Fault::Nonsense(format!("inode {number} is too short")))
    }
}
