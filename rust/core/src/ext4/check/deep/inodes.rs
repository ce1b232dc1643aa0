//! Every inode (`e2fsck_pass1`).

use super::attributes::Charge;
use super::blocks::Mapped;
use super::{Deep, Directory};
use crate::error::Result;
use crate::ext4::read::bytes::u32_at;
use crate::ext4::read::extent::Header;
use crate::ext4::read::features::{compat, incompat, ro_compat};
use crate::ext4::read::inode::{
    self, flags, Inode, Kind, BAD_INODE, JOURNAL_INODE, OLD_SIZE, ROOT_INODE,
};

/// Bytes of an inode table that are read at once.
const WINDOW: u64 = 1 << 20;
/// `EXT2_OS_HURD`
const HURD: u32 = 1;

impl Deep<'_> {
    pub(super) fn every_inode(&mut self) -> Result<()> {
        for group in 0..self.geometry.groups {
            self.control.check()?;
            self.inodes_of_group(group)?;
            self.control.advance(1);
        }
        Ok(())
    }

    fn inodes_of_group(&mut self, group: u32) -> Result<()> {
        let size = u64::from(self.geometry.inode_size);
        let count = u64::from(self.groups[group as usize].inodes);
        let first_number = group * self.geometry.inodes_per_group + 1;
        self.reserved_are_used(first_number);
        if count == 0 {
            return Ok(());
        }
        let table = self.geometry.byte(self.descriptor(group)?.inode_table);
        let mut window = vec![0; WINDOW.min(count * size) as usize];
        let mut at = 0;
        while at < count * size {
            self.control.check()?;
            // What is a hole has no inode in use.
            let data = self.fs.image.next_data(table + at)?;
            at = data.saturating_sub(table) / size * size;
            if at >= count * size {
                break;
            }
            // OK to cut: at most WINDOW.
            let len = WINDOW.min(count * size - at) as usize;
            if !self.fs.image.read(table + at, &mut window[..len])? {
                self.problem(
                    "truncated",
                    format!("group {group}: the inode table is behind the end"),
                );
                return Ok(());
            }
            for (index, raw) in (at / size..).zip(window[..len].chunks_exact(size as usize)) {
                // Most are zeros, and those are not in use.
                if raw.iter().any(|byte| *byte != 0) {
                    // OK to cut: less than the inodes of a group.
                    self.inode(first_number + index as u32, raw)?;
                }
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Inodes that are the file system's own are in use, whatever they say.
    fn reserved_are_used(&mut self, first_number: u32) {
        let last = first_number + (self.geometry.inodes_per_group - 1);
        for number in first_number..=last.min(self.sb.s_first_ino.saturating_sub(1)) {
            if number != ROOT_INODE {
                self.inodes.entry(number).used = true;
            }
        }
    }

    fn inode(&mut self, number: u32, raw: &[u8]) -> Result<()> {
        if self.sb.has_checksums() {
            let (stored, computed) = inode::checksums(number, raw, self.seed);
            if stored != computed {
                self.problem(
                    "inode-checksum",
                    format!("inode {number}: its checksum is 0x{stored:08x}, its bytes give 0x{computed:08x}"),
                );
            }
        }
        let Some(inode) = Inode::decode(raw) else {
            return Ok(());
        };
        if self.is_reserved(number) || self.is_special(number) {
            self.deleted_reserved(number, &inode);
            self.flags_of_any(number, &inode);
            return self.reserved_inode(number, &inode);
        }
        if !self.is_in_use(number, &inode) {
            return Ok(());
        }
        let kind = inode.kind();
        let entry = self.inodes.entry(number);
        entry.used = true;
        entry.links = inode.i_links_count;
        entry.kind = kind;
        entry.holds_value = inode.has(flags::EA_INODE);
        entry.indexed = inode.has(flags::INDEX);
        self.fields(number, &inode);
        self.flags_of_any(number, &inode);
        let inside = self.extra_space(number, raw, &inode)?;
        let values = inside + self.attribute_block(number, &inode)?;
        let mut map = Mapped::of(number, &inode);
        map.clusters = values.clusters;
        match kind {
            Some(Kind::Directory) => {
                // One that was removed while it was open has no names any more.
                if inode.i_links_count != 0 || !self.orphans.contains(&number) {
                    self.directories.push(Directory {
                        number,
                        parent: 0,
                        dotdot: 0,
                    });
                }
                let group = (number - 1) / self.geometry.inodes_per_group;
                self.groups[group as usize].directories += 1;
            }
            Some(Kind::Symlink) => self.symlink(number, &inode, raw)?,
            Some(Kind::Regular) => {}
            Some(_) => self.special(number, &inode),
            None => self.problem(
                "inode-mode",
                format!("inode {number}: its mode 0{:o} names no type", inode.i_mode),
            ),
        }
        self.data(&inode, &mut map)?;
        self.inline(number, &inode, raw)?;
        self.encrypted(number, &inode, raw)?;
        if !Self::is_inline_symlink(&inode) {
            self.charge(number, &inode, map.clusters, values);
        }
        if self.orphans.contains(&number) {
            // It is still to be cut, so that its blocks are more than its size.
            return Ok(());
        }
        self.sizes(&inode, &map);
        Ok(())
    }

    /// Whether it is in use, and what is wrong with how it says so.
    fn is_in_use(&mut self, number: u32, inode: &Inode) -> bool {
        if self.orphans.contains(&number) {
            // i_dtime is the next of them.
            return true;
        }
        self.low_dtime(number, inode);
        if inode.i_links_count == 0 {
            if inode.i_dtime == 0 && inode.i_mode != 0 {
                self.problem(
                    "inode-deleted",
                    format!("inode {number}: it has no links, but no time of deletion"),
                );
            }
            return false;
        }
        if inode.i_dtime != 0 {
            self.problem(
                "inode-deleted",
                format!(
                    "inode {number}: it is in use and has a time of deletion, {}",
                    inode.i_dtime
                ),
            );
        }
        true
    }

    /// A time of deletion that is an inode's number is a link of the list of
    /// orphans (`PR_1_LOW_DTIME`), unless the clock was that low.
    pub(super) fn low_dtime(&mut self, number: u32, inode: &Inode) {
        let low_clock = [self.sb.s_wtime, self.sb.s_mtime, self.sb.s_mkfs_time]
            .iter()
            .any(|time| *time != 0 && *time < self.sb.s_inodes_count);
        if inode.i_dtime != 0 && !low_clock && inode.i_dtime < self.sb.s_inodes_count {
            self.problem(
                "orphan",
                format!(
                    "inode {number}: it is a part of a list of orphans, of which {} is next",
                    inode.i_dtime
                ),
            );
        }
    }

    fn deleted_reserved(&mut self, number: u32, inode: &Inode) {
        if inode.i_links_count != 0 {
            self.low_dtime(number, inode);
        }
    }

    /// Fields that have to be zero, and flags that need a feature, of files.
    fn fields(&mut self, number: u32, inode: &Inode) {
        let directory = inode.kind() == Some(Kind::Directory);
        let mut bad = |text: &str| {
            self.report
                .problem("inode-fields", format!("inode {number}: {text}"));
        };
        if inode.i_faddr != 0 {
            bad("it has the address of a fragment, which nothing ever had");
        }
        if directory && inode.size >> 32 != 0 && !self.sb.has_incompat(incompat::LARGE_DIR) {
            bad("it is a directory of more than 4 GiB, without the feature large_dir");
        }
        if !self.sb.has_incompat(incompat::SIXTY_FOUR_BIT) && inode.file_acl >> 32 != 0 {
            bad("its block of attributes has a high half, without the feature 64bit");
        }
        if !self.sb.has_ro_compat(ro_compat::HUGE_FILE) && inode.blocks >> 32 != 0 {
            bad("its number of blocks has a high half, without the feature huge_file");
        }
        let mut bad = |text: &str| {
            self.report
                .problem("inode-flags", format!("inode {number}: {text}"));
        };
        if inode.has(flags::IMAGIC) {
            bad("it has the flag imagic");
        }
        if inode.has(flags::INDEX) && (!directory || !self.sb.has_compat(compat::DIR_INDEX)) {
            bad("it has an index, but is no directory, or the file system does not have the feature");
        } else if inode.has(flags::INDEX) && inode.has(flags::INLINE_DATA) {
            // handle_htree
            bad("it has an index, and no block to hold it: its data are inline");
        }
        if inode.has(flags::ENCRYPT) && !self.sb.has_incompat(incompat::ENCRYPT) {
            bad("it is encrypted, without the feature");
        }
        if number == ROOT_INODE && !directory {
            self.problem(
                "root-inode",
                format!("inode 2 is no directory: its mode is 0{:o}", inode.i_mode),
            );
        }
    }

    /// Flags that those of the file system's own are asked for as well.
    fn flags_of_any(&mut self, number: u32, inode: &Inode) {
        let directory = inode.kind() == Some(Kind::Directory);
        let mut bad = |text: &str| {
            self.report
                .problem("inode-flags", format!("inode {number}: {text}"));
        };
        if inode.has(flags::CASEFOLD) && (!directory || !self.sb.has_incompat(incompat::CASEFOLD)) {
            bad(
                "it folds cases, but is no directory, or the file system does not have the feature",
            );
        }
        if inode.has(flags::EA_INODE) && inode.kind() != Some(Kind::Regular) {
            bad("it is said to hold a value of an attribute, but is no regular file");
        }
        if inode.has(flags::INLINE_DATA) && inode.has(flags::EXTENTS) {
            bad("it has inline data and extents");
        }
        if inode.has(flags::INLINE_DATA)
            && number >= self.sb.s_first_ino
            && !self.sb.has_incompat(incompat::INLINE_DATA)
        {
            bad("it has inline data, without the feature");
        }
        let mapped =
            inode.i_links_count != 0 || [BAD_INODE, ROOT_INODE, JOURNAL_INODE].contains(&number);
        if mapped && inode.has(flags::EXTENTS) && !self.sb.has_incompat(incompat::EXTENTS) {
            bad("it has extents, without the feature");
        }
        let could_be = mapped
            && matches!(inode.kind(), Some(Kind::Regular | Kind::Directory))
            && !inode.has(flags::EXTENTS | flags::INLINE_DATA)
            && self.sb.has_incompat(incompat::EXTENTS)
            && Header::decode(&inode.i_block)
                .is_some_and(|header| Self::is_extent_header(&header, 60));
        if could_be {
            bad("it has a tree of extents, but not the flag");
        }
    }

    /// What lies behind the first 128 bytes (`check_inode_extra_space`).
    fn extra_space(&mut self, number: u32, raw: &[u8], inode: &Inode) -> Result<Charge> {
        if raw.len() <= OLD_SIZE {
            return Ok(Charge::default());
        }
        let extra = usize::from(inode.i_extra_isize);
        let room = raw.len() - OLD_SIZE;
        if extra != 0 && (extra < 4 || extra > room || !extra.is_multiple_of(4)) {
            self.problem(
                "inode-extra-size",
                format!(
                    "inode {number}: i_extra_isize is {extra}; 4 to {room}, by fours, is possible"
                ),
            );
            return Ok(Charge::default());
        }
        self.negative_epochs(number, raw);
        self.attributes_in_inode(number, raw, inode)
    }

    /// Times before 1970 that old kernels wrote as of 2310 and later
    /// (`PR_1_EA_TIME_OUT_OF_RANGE`). Fields are looked at whether
    /// `i_extra_isize` reaches them or not, as e2fsck does.
    fn negative_epochs(&mut self, number: u32, raw: &[u8]) {
        let times = [
            ("atime", 0x08, 0x8c),
            ("ctime", 0x0c, 0x84),
            ("mtime", 0x10, 0x88),
            ("crtime", 0x90, 0x94),
        ];
        for (name, seconds, extra) in times {
            if raw.len() >= extra + 4
                && u32_at(raw, seconds) >> 31 == 1
                && u32_at(raw, extra) & 3 == 3
            {
                self.problem(
                    "inode-time",
                    format!("inode {number}: its {name} is of before 1970 as old kernels wrote it wrongly"),
                );
            }
        }
    }

    /// Devices, FIFOs and sockets (`e2fsck_pass1_check_device_inode`).
    fn special(&mut self, number: u32, inode: &Inode) {
        let unmovable = inode.has(flags::IMMUTABLE | flags::APPEND);
        if inode.has(flags::EXTENTS | flags::INLINE_DATA | flags::INDEX) || unmovable {
            self.problem(
                "inode-flags",
                format!(
                    "inode {number}: it is a device, FIFO or socket with the flags 0x{:x}",
                    inode.i_flags
                ),
            );
        }
        if inode.size != 0 {
            self.problem(
                "inode-size",
                format!(
                    "inode {number}: it is a device, FIFO or socket of {} bytes",
                    inode.size
                ),
            );
        }
    }

    /// Walks what the inode maps.
    pub(super) fn data(&mut self, inode: &Inode, map: &mut Mapped) -> Result<()> {
        if !Self::maps_blocks(inode) || map.number == BAD_INODE {
            return Ok(());
        }
        if inode.has(flags::EXTENTS) {
            self.extents(inode, map)
        } else {
            let bigalloc = self.geometry.cluster_ratio > 1;
            let movable = matches!(inode.kind(), Some(Kind::Regular | Kind::Directory));
            self.block_map(inode, map)?;
            if bigalloc && movable && map.clusters > 0 && !self.is_reserved(map.number) {
                self.problem(
                    "inode-flags",
                    format!(
                        "inode {}: it has a block map, in a file system with clusters",
                        map.number
                    ),
                );
            }
            Ok(())
        }
    }

    /// Size and number of blocks against what is mapped.
    pub(super) fn sizes(&mut self, inode: &Inode, map: &Mapped) {
        let block_size = u64::from(self.geometry.block_size);
        let number = map.number;
        let extents = inode.has(flags::EXTENTS) && self.sb.has_incompat(incompat::EXTENTS);
        let inline = inode.has(flags::INLINE_DATA);
        let blocks = map.last.map_or(0, |last| last + 1);
        let bad = if map.is_directory && !inline {
            let told = inode.size / block_size;
            let prealloc = u64::from(self.sb.s_prealloc_dir_blocks);
            if map.clusters == 0 {
                Some("it is a directory without a block".to_owned())
            } else if !inode.size.is_multiple_of(block_size) {
                Some(format!("it is a directory of {} bytes", inode.size))
            } else if told > blocks || blocks - told > prealloc {
                Some(format!(
                    "it is a directory of {told} blocks by its size, and {blocks} by its map"
                ))
            } else {
                None
            }
        } else if map.is_directory || inode.kind() == Some(Kind::Symlink) {
            None
        } else if map
            .last_written
            .is_some_and(|last| inode.size < last * block_size)
            && !inode.has(flags::VERITY)
        {
            Some(format!(
                "it has {} bytes, but {blocks} blocks of data",
                inode.size
            ))
        } else if !extents && inode.size > self.most_without_extents() {
            Some(format!(
                "{} bytes are more than a block map can hold",
                inode.size
            ))
        } else if extents && inode.size > (block_size << 32) - 1 {
            Some(format!(
                "{} bytes are more than extents can hold",
                inode.size
            ))
        } else {
            None
        };
        if let Some(text) = bad {
            self.problem("inode-size", format!("inode {number}: {text}"));
        }
        let large = inode.kind() == Some(Kind::Regular) && inode.size >= 1 << 31;
        if large && !self.sb.has_ro_compat(ro_compat::LARGE_FILE) {
            self.problem(
                "inode-size",
                format!(
                    "inode {number}: {} bytes need the feature large_file",
                    inode.size
                ),
            );
        }
        let huge = self.sb.has_ro_compat(ro_compat::HUGE_FILE) && inode.has(flags::HUGE_FILE);
        let unit = if huge { 1 } else { block_size / 512 };
        let expected = map.clusters * unit * u64::from(self.geometry.cluster_ratio);
        let told = if self.sb.has_ro_compat(ro_compat::HUGE_FILE) {
            inode.blocks
        } else {
            inode.blocks & 0xffff_ffff
        };
        if self.sb.s_creator_os == HURD {
            self.note("fields of inodes to which the Hurd gives a meaning of its own");
        } else if told != expected && !Self::gave_up(map) {
            self.problem(
                "inode-blocks",
                format!("inode {number}: i_blocks is {told}, what it maps gives {expected}"),
            );
        }
    }

    /// `ext2_max_sizes`: what a block map can hold.
    fn most_without_extents(&self) -> u64 {
        let block_size = u64::from(self.geometry.block_size);
        let per_block = block_size / 4;
        let mapped = 12 + per_block + per_block * per_block + per_block * per_block * per_block;
        mapped.saturating_mul(block_size)
    }
}
