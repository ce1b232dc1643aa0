//! Looks at the names of one directory: inode, attributes, target.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, Stat};
use rustix::io::Errno;

use super::entry::{Entry, Flags, Type, HIDDEN};
use super::flags;
use super::list::Listing;
use super::scan::{lock, too_large, whiteout, Shared};
use super::scanned::Shelf;
use super::xattrs::Reader;
use crate::error::Result;
use crate::tree::InodeFlags;

/// A directory found in the one that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    /// Its entry on the shelf.
    pub(super) index: u32,
    /// Its `st_dev`.
    pub(super) device: u64,
}

/// One thread's shelf, and what it needs to fill it.
pub(super) struct Inspector<'a> {
    shared: &'a Shared<'a>,
    reader: Reader,
    /// What was found.
    pub(super) shelf: Shelf,
    /// The directories found since they were last taken.
    pub(super) children: Vec<Child>,
    /// Whether a `.wh..wh..opq` was met (fuse-overlayfs).
    pub(super) opaque: bool,
    count: u64,
    device: Option<(u64, u16)>,
    target: Vec<u8>,
}

/// What hides a name in stores of fuse-overlayfs that cannot make device nodes.
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// What makes a directory opaque there.
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

impl<'a> Inspector<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, reader: Reader) -> Self {
        Self {
            shared,
            reader,
            shelf: Shelf::default(),
            children: Vec::new(),
            opaque: false,
            count: 0,
            device: None,
            target: Vec::new(),
        }
    }

    /// How many names were looked at since the last call.
    pub(super) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }

    /// Looks at the names `range` of a sorted listing of `opened`; returns
    /// where they lie on the shelf.
    pub(super) fn inspect(
        &mut self,
        opened: BorrowedFd<'_>,
        directory: u32,
        layer: usize,
        listing: &Listing,
        range: Range<usize>,
    ) -> Result<Range<u32>> {
        let start = self.shelf.entries.len();
        if let Err(error) = self.reader.enter(opened) {
            self.shared.failed("enter", directory, b"", error)?;
            let start = u32::try_from(start).map_err(|_| too_large())?;
            return Ok(start..start);
        }
        let reserve = range.len();
        self.shelf.entries.reserve(reserve);
        let mut sorted = true;
        for at in range {
            let name = listing.name(at);
            self.count += 1;
            if self.shared.options.fuse_overlayfs {
                if let Some(hidden) = name.to_bytes().strip_prefix(WHITEOUT_PREFIX) {
                    self.opaque |= name.to_bytes() == OPAQUE_NAME;
                    // A name beside its own whiteout is newer than it.
                    let of_name = !hidden.is_empty()
                        && !hidden.starts_with(WHITEOUT_PREFIX)
                        && !listing.contains(hidden);
                    if of_name {
                        let (name, len) = self.keep_name(hidden)?;
                        self.shelf.entries.push(whiteout(name, len));
                        sorted = false;
                    }
                    continue;
                }
            }
            self.entry(opened, directory, layer, name)?;
        }
        if !sorted {
            self.sort_from(start);
        }
        let end = u32::try_from(self.shelf.entries.len()).map_err(|_| too_large())?;
        // OK to convert: not above `end`.
        Ok(u32::try_from(start).map_err(|_| too_large())?..end)
    }

    /// Whiteouts by prefix stand under the name that they hide.
    fn sort_from(&mut self, start: usize) {
        let Shelf {
            entries,
            names,
            redirects,
        } = &mut self.shelf;
        let name = |entry: &Entry| {
            let at = entry.name as usize;
            at..at + usize::from(entry.name_len)
        };
        let mut order: Vec<u32> = (0..).take(entries.len() - start).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (entries[start + a as usize], entries[start + b as usize]);
            names[name(&a)].cmp(&names[name(&b)])
        });
        let old = entries.split_off(start);
        entries.extend(order.iter().map(|&at| old[at as usize]));
        // What refers to an entry by its place moves along.
        let mut moved = vec![0u32; order.len()];
        for (to, &from) in (0u32..).zip(&order) {
            moved[from as usize] = to;
        }
        let place = |index: u32| match (index as usize).checked_sub(start) {
            // OK to add: the sum is the index of another entry.
            Some(at) => index - at as u32 + moved[at],
            None => index,
        };
        for (index, _) in redirects.iter_mut() {
            *index = place(*index);
        }
        redirects.sort_unstable_by_key(|(index, _)| *index);
        for child in &mut self.children {
            child.index = place(child.index);
        }
        self.children.sort_unstable_by_key(|child| child.index);
    }

    /// The entry of a layer's root, which has no name.
    pub(super) fn root(
        &mut self,
        opened: BorrowedFd<'_>,
        directory: u32,
        stat: &Stat,
    ) -> Result<Entry> {
        let mut entry = self.describe(stat, Type::Directory)?;
        entry.link = directory;
        if let Err(error) = self.reader.enter(opened) {
            self.shared.failed("enter", directory, b"", error)?;
            return Ok(entry);
        }
        self.attributes(opened, directory, c".", Type::Directory, &mut entry)?;
        if self.shared.options.inode_flags {
            match flags::of(opened) {
                Ok(found) => entry.inode_flags = found,
                Err(error) => self
                    .shared
                    .failed("read the flags of", directory, b"", error)?,
            }
        }
        Ok(entry)
    }

    fn entry(
        &mut self,
        opened: BorrowedFd<'_>,
        directory: u32,
        layer: usize,
        name: &CStr,
    ) -> Result<()> {
        let shared = self.shared;
        let bytes = name.to_bytes();
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match rustix::fs::statat(opened, name, flags) {
            Ok(stat) => stat,
            Err(Errno::NOENT) if shared.options.overlay_mount => return Ok(()),
            Err(error) => return shared.failed("stat", directory, bytes, error),
        };
        let Some(kind) = Type::of(stat.st_mode) else {
            let reason = format!("mode {:o} names no type of file", stat.st_mode);
            return Err(shared.corrupt(directory, bytes, reason));
        };
        let mut entry = self.describe(&stat, kind)?;
        // Any mode, any owner: only the type and number make a whiteout.
        if kind == Type::CharDevice && entry.size == 0 && !shared.options.raw {
            entry.flags |= Flags::WHITEOUT;
        } else {
            self.attributes(opened, directory, name, kind, &mut entry)?;
        }
        if shared.options.inode_flags && matches!(kind, Type::File | Type::Directory) {
            match flags::of_name(opened, name) {
                Ok(found) => entry.inode_flags = found,
                Err(error) => shared.failed("read the flags of", directory, bytes, error)?,
            }
        }
        (entry.name, entry.name_len) = self.keep_name(bytes)?;
        match kind {
            Type::Symlink => {
                let buffer = std::mem::take(&mut self.target);
                match rustix::fs::readlinkat(opened, name, buffer) {
                    Ok(target) => {
                        self.shelf.names.extend_from_slice(target.as_bytes());
                        entry.size = target.as_bytes().len() as u64;
                        self.target = target.into_bytes();
                    }
                    Err(error) => return shared.failed("read link", directory, bytes, error),
                }
            }
            Type::File if !shared.access.reads_all => {
                if let Err(Errno::ACCESS | Errno::PERM) = readable(opened, name) {
                    entry.flags |= Flags::UNREADABLE;
                }
            }
            Type::Directory => {
                shared
                    .chain
                    .refuse_overlap(layer, stat.st_dev, stat.st_ino)?;
                self.children.push(Child {
                    index: u32::try_from(self.shelf.entries.len()).map_err(|_| too_large())?,
                    device: stat.st_dev,
                });
            }
            _ => {}
        }
        self.shelf.entries.push(entry);
        Ok(())
    }

    /// What `stat` tells.
    #[expect(clippy::cast_possible_truncation, reason = "st_mode has 16 bits")]
    fn describe(&mut self, stat: &Stat, kind: Type) -> Result<Entry> {
        let mut flags = Flags::empty();
        let mut size = u64::try_from(stat.st_size).unwrap_or(0);
        match kind {
            Type::File => {
                let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                flags.set(Flags::SPARSE, blocks.saturating_mul(512) < size);
            }
            Type::CharDevice | Type::BlockDevice => {
                let (major, minor) = (
                    rustix::fs::major(stat.st_rdev),
                    rustix::fs::minor(stat.st_rdev),
                );
                size = u64::from(major) << 32 | u64::from(minor);
            }
            _ => {}
        }
        let linked = stat.st_nlink > 1 || self.shared.options.overlay_mount;
        flags.set(Flags::LINKED, kind != Type::Directory && linked);
        Ok(Entry {
            inode: stat.st_ino,
            size,
            seconds: stat.st_mtime,
            // OK to convert: below a thousand million.
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
            name: 0,
            xattrs: 0,
            link: HIDDEN,
            mode: stat.st_mode as u16,
            device: self.device(stat.st_dev)?,
            name_len: 0,
            flags,
            inode_flags: InodeFlags::empty(),
        })
    }

    fn attributes(
        &mut self,
        opened: BorrowedFd<'_>,
        directory: u32,
        name: &CStr,
        kind: Type,
        entry: &mut Entry,
    ) -> Result<()> {
        let found = match self.reader.read(opened, name, kind, entry.size) {
            Ok(found) => found,
            Err(error) => {
                let name = if name == c"." { b"" } else { name.to_bytes() };
                return self
                    .shared
                    .failed("read attributes of", directory, name, error);
            }
        };
        entry.flags |= found.flags;
        if let Some(redirect) = found.redirect {
            let index = u32::try_from(self.shelf.entries.len()).map_err(|_| too_large())?;
            // A layer's root is not looked up, so its redirect means nothing.
            if name != c"." {
                self.shelf.redirects.push((index, redirect));
            }
        }
        if !found.shown.is_empty() {
            let set = found.shown.into_boxed_slice();
            let id = lock(&self.shared.xattrs)
                .intern(set)
                .ok_or_else(too_large)?;
            // OK to convert: ids have 32 bits.
            entry.xattrs = u32::try_from(id.index()).map_err(|_| too_large())?;
        }
        Ok(())
    }

    fn keep_name(&mut self, name: &[u8]) -> Result<(u32, u8)> {
        let start = u32::try_from(self.shelf.names.len()).map_err(|_| too_large())?;
        self.shelf.names.extend_from_slice(name);
        // OK to fail: no file system of Linux has names above 255 bytes.
        let len = u8::try_from(name.len()).map_err(|_| too_large())?;
        Ok((start, len))
    }

    fn device(&mut self, device: u64) -> Result<u16> {
        if let Some((last, index)) = self.device {
            if last == device {
                return Ok(index);
            }
        }
        let mut devices = lock(&self.shared.devices);
        let at = devices
            .iter()
            .position(|&known| known == device)
            .unwrap_or_else(|| {
                devices.push(device);
                devices.len() - 1
            });
        let index = u16::try_from(at).map_err(|_| too_large())?;
        self.device = Some((device, index));
        Ok(index)
    }
}

/// Asks for the effective ids where the kernel can (5.8 and newer).
fn readable(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::accessat(directory, name, Access::READ_OK, AtFlags::EACCESS) {
        Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => {
            rustix::fs::accessat(directory, name, Access::READ_OK, AtFlags::empty())
        }
        other => other,
    }
}
