//! Grows an image that nothing uses, without moving a block of it.
//!
//! The last group is made whole and new ones are added, with descriptors in the
//! blocks that `resize_inode` keeps for them, and beyond those in the groups
//! themselves (`meta_bg`), as the kernel grows a mounted one.
//!
//! Whatever happens meanwhile, the image is the old file system or the new one:
//!
//! 1. What lies beyond the old end is written, and the blocks of the old part
//!    that change are written into the image's own journal. Nothing looks at
//!    either. Sync.
//! 2. The superblock says that the journal may hold something. Sync. `e2fsck
//!    -fn` finds the old file system, and nothing to say against it.
//! 3. The journal's superblock says that it does: one sector, which decides.
//!    Sync. `e2fsck -p` and a mount make the new file system of it; `e2fsck -n`
//!    does not replay a journal and still finds the old one.
//! 4. The blocks are written to their places. Sync. Then the superblock, and the
//!    copies in the old part. Sync. Cut off meanwhile, `e2fsck -p` and a mount
//!    finish it; `-n`, which does not replay, finds a mixture. The mount that does
//!    it counted the groups before, so that it leaves the free counts of the old
//!    ones in the superblock; the next mount makes them anew, or `e2fsck -p`.
//! 5. The journal is empty again. Sync. Then the superblock says so. Sync.
//!
//! A superblock's 1,024 bytes are taken to reach the disk whole, as the kernel
//! does. Without a journal that has room the caller grows a copy and puts it in
//! the place of the image ([`Outcome::NeedsCopy`]).

mod bitmap;
mod changes;
mod descriptor;
mod disk;
mod fault;
mod inode;
mod journal;
mod place;
mod resize_inode;
mod shape;
mod size;
mod superblock;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::ext4::read::features::incompat;
use crate::ext4::read::superblock::{Superblock as Fields, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use changes::{Changed, Changes};
use disk::Disk;
use journal::Journal;
use shape::Shape;
use superblock::Superblock;

pub use disk::Event;
pub use size::Target;

/// How to grow.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How large.
    pub target: Target,
    /// Whether the file must be the old or the new file system at every moment;
    /// not so for a copy that nobody sees.
    pub atomic: bool,
    /// Whether to wait for the disk.
    pub sync: bool,
    /// Whether to remember every change, for tests.
    pub record: bool,
}

/// A file system's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Blocks.
    pub blocks: u64,
    /// Free ones of them.
    pub free_blocks: u64,
    /// Groups.
    pub groups: u32,
    /// Inodes.
    pub inodes: u32,
    /// Free ones of them.
    pub free_inodes: u32,
}

/// What growing did.
#[derive(Clone, Debug)]
pub struct GrowReport {
    /// Bytes of a block.
    pub block_size: u32,
    /// As it was.
    pub old: Numbers,
    /// As it is. Equal to `old` when there was nothing to do.
    pub new: Numbers,
    /// Bytes of the file or device now.
    pub file_bytes: u64,
    /// Bytes written.
    pub written: u64,
    /// Whether descriptors of new groups lie in the groups themselves.
    pub meta_bg: bool,
    /// What reached the file, if it was recorded.
    pub events: Vec<Event>,
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The image is as large as it is to be.
    Done(Box<GrowReport>),
    /// Nothing was changed: in this file it cannot be done safely, for this
    /// reason. A copy can be grown.
    NeedsCopy(String),
}

/// Grows the file system in `file`, which is open for reading and writing;
/// `path` is for messages. Nothing else may have it in use.
///
/// # Errors
/// [`crate::Error::NotGrown`] for an image that cannot be grown as it is,
/// [`crate::Error::InvalidOption`] for a size that cannot be;
/// [`crate::Error::HalfGrown`] when the disk failed after the journal decided, or
/// would not take back what was begun. After any other error the file is as long
/// as it was and the file system the old one.
pub fn grow(file: File, path: &Path, options: &Options, control: &Control) -> Result<Outcome> {
    let mut disk = Disk::new(file, path, options.sync, options.record)?;
    if disk.size() < SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE as u64 {
        return Err(fault::unsound(path, "it is no ext2, ext3 or ext4".into()));
    }
    let mut raw = [0; SUPERBLOCK_SIZE];
    disk.fill(SUPERBLOCK_OFFSET, &mut raw)?;
    let sb = Superblock::admit(raw, path)?;
    let fields = sb.fields();
    let old = Shape::of(&fields, disk.size(), path)?;
    let bytes = size::bytes(&old, options.target, disk.size())?;
    if disk.is_device() && bytes > disk.size() {
        return Err(Error::InvalidOption {
            option: "size",
            reason: format!("the device has {} bytes", disk.size()),
        });
    }
    let new = size::shape(
        &old,
        bytes,
        fields.has_incompat(incompat::SIXTY_FOUR_BIT),
        path,
    )?;
    if new.blocks == old.blocks {
        return Ok(done(&mut disk, &old, &fields, &old, &fields));
    }
    let journal = if options.atomic {
        match Journal::open(&disk, &old, &fields, most_changes(&old, &new))? {
            Ok(journal) => Some(journal),
            Err(reason) => return Ok(Outcome::NeedsCopy(reason)),
        }
    } else {
        None
    };

    control.begin(Phase::Write, 0);
    let before = disk.size();
    let prepared = prepare(&mut disk, &old, &new, &sb, bytes, journal.as_ref(), control);
    let (changed, whole) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // Nothing that counts was touched.
            if disk.size() > before {
                let _ = disk.set_len(before);
            }
            return Err(error);
        }
    };
    if let Some(journal) = &journal {
        if let Err(error) = decide(&mut disk, &sb, journal) {
            return Err(match undo(&mut disk, &sb, journal, before) {
                Ok(()) => error,
                Err(_) => half_grown(error, UNDECIDED),
            });
        }
    }
    if let Err(error) = carry_out(&mut disk, &new, &changed, &whole, journal.as_ref()) {
        return Err(if journal.is_some() {
            half_grown(error, DECIDED)
        } else {
            error
        });
    }
    let now = changed.superblock.fields();
    Ok(done(&mut disk, &old, &fields, &new, &now))
}

/// The image after an error.
const UNDECIDED: &str = "what was begun could not be undone: `e2fsck -f` makes the image the old \
                         file system or the new one, and both are whole";
const DECIDED: &str = "the whole change is in the image's journal: the next mount makes it, or \
                       `e2fsck -f`";

fn half_grown(error: Error, state: &'static str) -> Error {
    match error {
        Error::Io {
            action,
            path,
            source,
        } => Error::HalfGrown {
            action,
            path,
            source,
            state,
        },
        other => other,
    }
}

/// From here on the new file system is the one that counts.
fn decide(disk: &mut Disk, sb: &Superblock, journal: &Journal) -> Result<()> {
    let mut marked = sb.clone();
    marked.set(0x60, incompat::RECOVER, true);
    disk.write(SUPERBLOCK_OFFSET, &marked.bytes())?;
    disk.barrier()?;
    journal.begin(disk)?;
    disk.barrier()
}

/// Back to the old one, when it is not known whether that was decided.
fn undo(disk: &mut Disk, sb: &Superblock, journal: &Journal, length: u64) -> Result<()> {
    journal.forget(disk)?;
    disk.barrier()?;
    disk.write(SUPERBLOCK_OFFSET, &sb.bytes())?;
    disk.barrier()?;
    if disk.size() > length {
        disk.set_len(length)?;
    }
    Ok(())
}

/// All blocks get to their places.
fn carry_out(
    disk: &mut Disk,
    new: &Shape,
    changed: &Changed,
    whole: &BTreeMap<u64, Vec<u8>>,
    journal: Option<&Journal>,
) -> Result<()> {
    // The kernel looks at the descriptors before it replays the journal: those
    // of the new groups must be there when the superblock tells of them.
    let first = SUPERBLOCK_OFFSET / u64::from(new.block_size);
    for (&block, bytes) in whole.iter().filter(|&(&block, _)| block != first) {
        disk.write(new.byte(block), bytes)?;
    }
    disk.barrier()?;
    if let Some(bytes) = whole.get(&first) {
        disk.write(new.byte(first), bytes)?;
    }
    for (at, bytes) in &changed.copies {
        disk.write(*at, bytes)?;
    }
    if let Some(journal) = journal {
        disk.barrier()?;
        journal.end(disk)?;
    }
    disk.barrier()?;
    disk.write(SUPERBLOCK_OFFSET, &changed.superblock.bytes())?;
    disk.barrier()
}

/// The most blocks of the old part that can change: superblock, the resize
/// inode and its map, two bitmaps, and descriptors.
fn most_changes(old: &Shape, new: &Shape) -> u64 {
    5 + u64::from(new.classic() + new.reserved)
        + u64::from(old.desc_blocks().saturating_sub(new.classic()).min(2))
}

type Prepared = (Changed, BTreeMap<u64, Vec<u8>>);

/// All that may be done while the old file system is still the one that counts.
fn prepare(
    disk: &mut Disk,
    old: &Shape,
    new: &Shape,
    sb: &Superblock,
    bytes: u64,
    journal: Option<&Journal>,
    control: &Control,
) -> Result<Prepared> {
    let file_end = disk.size();
    if bytes > file_end {
        disk.set_len(bytes)?;
    }
    let changed = Changes::make(disk, old, new, sb, file_end, control)?;
    let mut whole = changed.blocks.clone();
    let block = SUPERBLOCK_OFFSET / u64::from(new.block_size);
    let mut bytes = disk.read(new.byte(block), new.block_size as usize)?;
    // OK to cut: less than a block.
    let at = (SUPERBLOCK_OFFSET - new.byte(block)) as usize;
    let mut marked = changed.superblock.clone();
    marked.set(0x60, incompat::RECOVER, journal.is_some());
    bytes[at..at + SUPERBLOCK_SIZE].copy_from_slice(&marked.bytes());
    whole.insert(block, bytes);
    if let Some(journal) = journal {
        for &block in whole.keys() {
            disk.reserve(new.byte(block), u64::from(new.block_size))?;
        }
        for (at, bytes) in &changed.copies {
            disk.reserve(*at, bytes.len() as u64)?;
        }
        journal.reserve(disk)?;
        journal.write(disk, &whole)?;
        disk.barrier()?;
    }
    control.check()?;
    Ok((changed, whole))
}

fn done(disk: &mut Disk, old: &Shape, was: &Fields, new: &Shape, is: &Fields) -> Outcome {
    let numbers = |shape: &Shape, sb: &Fields| Numbers {
        blocks: shape.blocks,
        free_blocks: sb.free_blocks_count,
        groups: shape.groups,
        inodes: sb.s_inodes_count,
        free_inodes: sb.s_free_inodes_count,
    };
    Outcome::Done(Box::new(GrowReport {
        block_size: new.block_size,
        old: numbers(old, was),
        new: numbers(new, is),
        file_bytes: disk.size(),
        written: disk.written(),
        meta_bg: new.first_meta.is_some(),
        events: disk.take_events(),
    }))
}
