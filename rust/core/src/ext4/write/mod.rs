//! Carries a plan out.
//!
//! Threads take windows of the image, in ascending order: as many regions side
//! by side as fit. Each window is put together in memory, data read straight
//! from the layers' files to its place there, and written by one call. The
//! superblock comes last: until then the file is no ext4.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use crate::blockio::{read_exact_at, write_all_at, ContentStore, Opened, Opener};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ext4::format::BLOCK_SIZE;
use crate::ext4::plan::{Plan, Region, Regions};

/// Blocks of a window: 4 MiB. Larger ones save no calls that matter, smaller
/// ones make more of them.
const WINDOW_BLOCKS: u64 = 1024;

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Bytes.
    pub bytes: u64,
    /// How the data came over.
    pub method: &'static str,
}

/// Writes the image of `plan` into `output`, which is empty. `files` is where
/// the data is; `path` is for messages.
pub fn write_image(
    plan: &Plan<'_>,
    files: &dyn ContentStore,
    output: &File,
    path: &Path,
    threads: usize,
    control: &Control,
) -> Result<Written> {
    output
        .set_len(plan.image_bytes())
        .map_err(Error::io("size", path))?;
    let mut regions = plan.regions();
    // OK to unwrap: block 0 is the superblock.
    let superblock = regions.next().expect("a superblock");
    let windows = Mutex::new(Windows {
        regions,
        rest: None,
    });
    let failed = AtomicBool::new(false);

    let work = || -> Result<u64> {
        let mut opener = files.opener(plan.tree());
        let mut window = Vec::new();
        let mut buffer = vec![0; (WINDOW_BLOCKS * u64::from(BLOCK_SIZE)) as usize];
        let mut written = 0;
        while !failed.load(Ordering::Relaxed) {
            control.check()?;
            // OK to unwrap: no thread panics while it holds the lock.
            if !windows
                .lock()
                .expect("an unpoisoned lock")
                .next_window(&mut window)
            {
                break;
            }
            let bytes = fill_window(plan, &mut *opener, &window, &mut buffer)?;
            write_all_at(output, bytes, window[0].offset(), path)?;
            written += bytes.len() as u64;
            control.advance(bytes.len() as u64);
        }
        Ok(written)
    };
    let guarded = || {
        let result = work();
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        result
    };

    let mut results: Vec<Result<u64>> = Vec::with_capacity(threads);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(guarded)).collect();
        results.push(guarded());
        for other in others {
            results.push(
                other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
    });
    let mut bytes = 0;
    for result in results {
        bytes += result?;
    }

    let mut block = vec![0; superblock.bytes() as usize];
    plan.encode(&superblock, &mut block);
    write_all_at(output, &block, superblock.offset(), path)?;
    Ok(Written {
        bytes: bytes + superblock.bytes(),
        method: "read+pwrite",
    })
}

/// Cuts the regions into windows.
struct Windows<'a> {
    regions: Regions<'a>,
    rest: Option<Region>,
}

impl Windows<'_> {
    /// Puts the regions of the next window into `window`; false at the end.
    fn next_window(&mut self, window: &mut Vec<Region>) -> bool {
        window.clear();
        let mut blocks = 0;
        while let Some(region) = self.rest.take().or_else(|| self.regions.next()) {
            let follows = window
                .last()
                .is_none_or(|last: &Region| last.end() == region.start);
            if !follows || blocks == WINDOW_BLOCKS {
                self.rest = Some(region);
                break;
            }
            let (head, tail) = region.split(WINDOW_BLOCKS - blocks);
            blocks += head.blocks;
            window.push(head);
            if tail.is_some() {
                self.rest = tail;
                break;
            }
        }
        !window.is_empty()
    }
}

/// Puts the bytes of a window together.
fn fill_window<'b>(
    plan: &Plan<'_>,
    opener: &mut dyn Opener,
    window: &[Region],
    buffer: &'b mut [u8],
) -> Result<&'b [u8]> {
    let mut at = 0;
    for region in window {
        let end = at + region.bytes() as usize;
        fill_region(plan, opener, region, &mut buffer[at..end])?;
        at = end;
    }
    Ok(&buffer[..at])
}

/// Writes the bytes of one region into `out`, which is as long as it.
pub fn fill_region(
    plan: &Plan<'_>,
    opener: &mut dyn Opener,
    region: &Region,
    out: &mut [u8],
) -> Result<()> {
    let Some((content, size, offset)) = plan.data(region) else {
        plan.encode(region, out);
        return Ok(());
    };
    // What lies behind the end of a file in its last block is zero.
    let there = size.saturating_sub(offset).min(out.len() as u64) as usize;
    let (data, behind) = out.split_at_mut(there);
    behind.fill(0);
    let result = match opener.open(content, size)? {
        Opened::Bytes(bytes) => {
            let offset = offset as usize;
            data.copy_from_slice(&bytes[offset..offset + there]);
            return Ok(());
        }
        Opened::File(file) => read_exact_at(file.as_fd(), data, offset).map(|()| file),
    };
    let file = result.map_err(|fault| fault.into_error(size, || opener.path(content)))?;
    opener.still_same(content, size, &file)
}
