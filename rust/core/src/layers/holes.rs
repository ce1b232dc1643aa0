//! Where the visible sparse files hold data.
//!
//! Only those with fewer blocks than their size asks for are opened for it. Of
//! a hidden one it is only asked whether there is a hole at all; no byte of it
//! is read.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::access::Access;
use super::chain::Chain;
use super::files::LayerFiles;
use super::scanned::{EntryId, Scan};
use super::walk::Walker;
use crate::blockio::{next_data, ContentStore, NextData, Opened, Opener};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tree::{Content, ContentId, Extent, HoleMap, Tree};

/// Files that a thread takes at once; they tend to be neighbours.
const TAKEN: usize = 32;

/// A map of more extents than this (1 MiB of memory) gives up its smallest
/// holes: their zeros are then copied, which is slower and as right.
const MOST_EXTENTS: usize = 65_536;

/// Finds the holes of `sparse` (content and size) and tells the tree.
pub(super) fn find(
    tree: &mut Tree,
    files: &LayerFiles,
    sparse: &[(ContentId, u64)],
    threads: usize,
    control: &Control,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(ContentId, HoleMap)>> {
        let mut opener = files.opener(tree);
        let mut maps = Vec::new();
        loop {
            let start = next.fetch_add(TAKEN, Ordering::Relaxed);
            if start >= sparse.len() {
                return Ok(maps);
            }
            for &(content, size) in &sparse[start..sparse.len().min(start + TAKEN)] {
                if let Some(map) = map(&mut *opener, content, size, control)? {
                    maps.push((content, map));
                }
            }
        }
    };
    let threads = threads.min(sparse.len().div_ceil(TAKEN));
    let maps = if threads < 2 {
        worker()?
    } else {
        std::thread::scope(|scope| {
            // One that cannot be started leaves its share to the others.
            let workers: Vec<_> = (1..threads)
                .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, worker).ok())
                .collect();
            let mut maps = worker()?;
            for one in workers {
                maps.extend(
                    one.join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
                );
            }
            Ok(maps)
        })?
    };
    for (content, map) in maps {
        if let Content::Layer { data, .. } = tree.content_mut(content) {
            *data = Some(map);
        }
    }
    Ok(())
}

/// The data of one file, or `None` when it has no holes (or its file system
/// cannot tell).
fn map(
    opener: &mut dyn Opener,
    content: ContentId,
    size: u64,
    control: &Control,
) -> Result<Option<HoleMap>> {
    let (file, found) = match opener.open(content)? {
        Opened::Bytes(_) => return Ok(None),
        Opened::File(file) => {
            let found = data(file.as_fd(), size, control);
            (file, found)
        }
    };
    opener.still_same(content, size, &file)?;
    found.map_err(|error| match error {
        Stop::Asked(error) => error,
        Stop::System(error) => Error::io("find the holes of", opener.path(content))(error),
    })
}

/// Asks whether hidden files have holes.
pub(super) struct Prober<'a> {
    chain: &'a Chain,
    walker: Walker,
    flags: OFlags,
}

impl<'a> Prober<'a> {
    pub(super) fn new(chain: &'a Chain, access: &Access) -> Self {
        let mut flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        flags.set(OFlags::NOATIME, access.noatime);
        Self {
            chain,
            walker: Walker::new(16, OFlags::PATH),
            flags,
        }
    }

    /// Whether the file has a hole. What cannot be opened has none: it only
    /// costs a gap in the image.
    pub(super) fn has_holes(&mut self, scan: &Scan, directory: u32, file: EntryId) -> bool {
        let entry = scan.entry(file);
        self.walker.route(directory, &scan.directories);
        let opened = self.walker.go(self.chain).and_then(|directory| {
            rustix::fs::openat(directory, scan.name(file), self.flags, Mode::empty())
        });
        let Ok(opened) = opened else {
            return false;
        };
        let same = rustix::fs::fstat(&opened).is_ok_and(|now| now.st_ino == entry.inode);
        same && rustix::fs::seek(&opened, SeekFrom::Hole(0)).is_ok_and(|hole| hole < entry.size)
    }
}

enum Stop {
    Asked(Error),
    System(Errno),
}

fn data(
    file: std::os::fd::BorrowedFd<'_>,
    size: u64,
    control: &Control,
) -> Result<Option<HoleMap>, Stop> {
    let mut extents = Extents::default();
    let mut at = 0;
    while at < size {
        control.check().map_err(Stop::Asked)?;
        let (start, end) = match next_data(file, at, size).map_err(Stop::System)? {
            NextData::Part(start, end) => (start, end),
            NextData::Nothing => break,
            NextData::Unknown => return Ok(None),
        };
        extents.add(start, end);
        at = end;
    }
    let found = extents.found;
    if found
        == [Extent {
            start: 0,
            len: size,
        }]
    {
        return Ok(None);
    }
    Ok(Some(found.into_boxed_slice()))
}

/// Ascending extents with no hole below a certain size between them.
#[derive(Default)]
struct Extents {
    found: Vec<Extent>,
    least_hole: u64,
}

impl Extents {
    fn add(&mut self, start: u64, end: u64) {
        if self.found.len() >= MOST_EXTENTS {
            self.coarsen();
        }
        match self.found.last_mut() {
            Some(last) if start - (last.start + last.len) <= self.least_hole => {
                last.len = end - last.start;
            }
            _ => self.found.push(Extent {
                start,
                len: end - start,
            }),
        }
    }

    fn coarsen(&mut self) {
        while self.found.len() > MOST_EXTENTS / 2 {
            self.least_hole = (self.least_hole * 2).max(4096);
            let least = self.least_hole;
            self.found.dedup_by(|next, last| {
                let joins = next.start - (last.start + last.len) <= least;
                if joins {
                    last.len = next.start + next.len - last.start;
                }
                joins
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_very_many_holes_gives_up_the_smallest() {
        let mut extents = Extents::default();
        let count = 3 * MOST_EXTENTS as u64;
        for at in 0..count {
            extents.add(at * 8192, at * 8192 + 4096);
        }
        extents.add(count * 8192 + (1 << 40), count * 8192 + (1 << 40) + 1);
        assert!(extents.found.len() <= MOST_EXTENTS);
        assert!(extents.found.len() >= 2, "the large hole stays");
        let first = extents.found[0];
        assert_eq!((first.start, first.len), (0, count * 8192 - 4096));
    }

    #[test]
    fn touching_extents_are_one() {
        let mut extents = Extents::default();
        extents.add(0, 4096);
        extents.add(4096, 8192);
        extents.add(8193, 8194);
        let expected = [
            Extent {
                start: 0,
                len: 8192,
            },
            Extent {
                start: 8193,
                len: 1,
            },
        ];
        assert_eq!(extents.found, expected);
    }
}
