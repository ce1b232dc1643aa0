//! The whole of a file system: every inode, directory, extent tree, block of
//! attributes and bitmap, in the order and by the rules of e2fsck's passes.
//!
//! It finds what `e2fsck -fn` finds; e2fsck's functions are named where a rule is
//! not the kernel's. Memory is a bit for each block that is in use, some bytes
//! for each inode that is in use, and some for each group. Nothing is read twice
//! for the same purpose, so that trees and directories that lead into each other
//! end.

mod attributes;
mod bitmaps;
mod bits;
mod blocks;
mod directories;
mod encryption;
mod extents;
mod htree;
mod inline;
mod inodes;
mod journal;
mod links;
mod metadata;
mod mmp;
mod orphans;
mod quotas;
mod records;
mod reserved;
mod superblock;
mod symlinks;
mod table;

use std::collections::HashSet;

use crate::control::{Control, Phase};
use crate::error::Result;
use crate::ext4::check::report::ImageReport;
use crate::ext4::read::filesystem::Filesystem;
use crate::ext4::read::geometry::Geometry;
use crate::ext4::read::superblock::Superblock;
use attributes::Attributes;
use bits::Bits;
use encryption::Encryption;
use quotas::Quotas;
use table::Table;

/// Looks at all of a file system whose groups' descriptors are where they can be.
pub(super) fn verify(fs: &Filesystem, report: &mut ImageReport, control: &Control) -> Result<()> {
    let mut deep = Deep {
        fs,
        sb: &fs.sb,
        geometry: &fs.geometry,
        seed: fs.sb.checksum_seed(),
        report,
        control,
        groups: Vec::new(),
        taken: Bits::default(),
        metadata: Bits::default(),
        read_as_directory: Bits::default(),
        inodes: Table::default(),
        directories: Vec::new(),
        attributes: Attributes::default(),
        quotas: Quotas::of(&fs.sb),
        encryption: Encryption::default(),
        orphans: HashSet::new(),
    };
    deep.superblock();
    deep.multiple_mounts()?;
    deep.find_orphans()?;
    deep.read_groups()?;
    deep.mark_metadata()?;
    control.begin(Phase::Inodes, u64::from(fs.geometry.groups));
    deep.every_inode()?;
    deep.resize_inode()?;
    deep.journal()?;
    deep.shared_attributes();
    control.begin(Phase::Directories, deep.directories.len() as u64);
    deep.every_directory()?;
    control.begin(Phase::Links, 0);
    deep.connectivity()?;
    deep.link_counts()?;
    control.begin(Phase::Bitmaps, u64::from(fs.geometry.groups));
    deep.bitmaps()?;
    deep.orphan_file()?;
    deep.compare_quotas()
}

/// A group, as far as later passes need it.
struct GroupInfo {
    /// Inodes at the begin of the table that may be in use.
    inodes: u32,
    /// The bitmap of its inodes was never written.
    inodes_uninit: bool,
    /// The bitmap of its blocks was never written.
    blocks_uninit: bool,
    /// Directories that were found in it.
    directories: u32,
}

/// A directory.
struct Directory {
    number: u32,
    /// Where its first name is, or 0.
    parent: u32,
    /// What its ".." says, or 0.
    dotdot: u32,
}

/// The state of the passes.
struct Deep<'a> {
    fs: &'a Filesystem,
    sb: &'a Superblock,
    geometry: &'a Geometry,
    /// What checksums start from.
    seed: u32,
    report: &'a mut ImageReport,
    control: &'a Control,
    groups: Vec<GroupInfo>,
    /// Clusters that something lies in.
    taken: Bits,
    /// Blocks of the file system's own metadata.
    metadata: Bits,
    /// Blocks that were read as a directory's.
    read_as_directory: Bits,
    inodes: Table,
    /// In ascending order of their numbers.
    directories: Vec<Directory>,
    attributes: Attributes,
    quotas: Quotas,
    encryption: Encryption,
    /// Inodes that the next mount deletes or cuts.
    orphans: HashSet<u32>,
}

impl Deep<'_> {
    fn problem(&mut self, code: &'static str, text: String) {
        self.report.problem(code, text);
    }

    /// Notes, once, that something was not looked at.
    fn note(&mut self, text: &str) {
        if !self.report.notes.iter().any(|note| note == text) {
            self.report.notes.push(text.to_owned());
        }
    }

    /// Fills `buffer` from a block's begin on; a block that cannot be read is a
    /// problem, and `false`.
    fn read_block(&mut self, block: u64, buffer: &mut [u8]) -> Result<bool> {
        let whole = block < self.geometry.blocks
            && self.fs.image.read(self.geometry.byte(block), buffer)?;
        if !whole {
            self.problem("truncated", format!("block {block} is behind the end"));
        }
        Ok(whole)
    }

    fn block_buffer(&self) -> Vec<u8> {
        vec![0; self.geometry.block_size as usize]
    }

    /// Whether a block is one that a file may have.
    fn is_inside(&self, block: u64) -> bool {
        block != 0
            && block >= u64::from(self.geometry.first_data_block)
            && block < self.geometry.blocks
    }

    /// The number of a block's cluster.
    fn cluster(&self, block: u64) -> u64 {
        (block - u64::from(self.geometry.first_data_block)) / u64::from(self.geometry.cluster_ratio)
    }

    /// Whether the file system has inodes of its own that are not in a directory.
    fn is_reserved(&self, number: u32) -> bool {
        number < self.sb.s_first_ino && number != crate::ext4::read::inode::ROOT_INODE
    }
}
