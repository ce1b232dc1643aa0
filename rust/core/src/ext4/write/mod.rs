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
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use crate::blockio::{read_exact_at, write_all_at, ContentStore, Opened, Opener};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ext4::plan::{Plan, Region, Regions};
use crate::sys::clone_range::clone_range;
use crate::sys::write_back::begin_write_back;
use crate::workers;

/// Bytes of a window. Larger ones save no calls that matter, smaller
/// ones make more of them.
const WINDOW_BYTES: u64 = 4 << 20;

/// From this length on sharing blocks is worth a system call: for less, copying
/// is as fast, and a file system keeps no record of it.
const SHARE_BYTES: u64 = 64 << 10;

/// How an image is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Threads that copy.
    pub threads: usize,
    /// Whether the disk begins at once with what was written, because its end
    /// will be waited for.
    pub write_back: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Bytes, with those that are shared.
    pub bytes: u64,
    /// Bytes that are shared with the layers' files.
    pub cloned: u64,
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
    options: WriteOptions,
    control: &Control,
) -> Result<Written> {
    output
        .set_len(plan.image_bytes())
        .map_err(Error::io("size", path))?;
    let mut regions = plan.regions();
    // OK to unwrap: group 0 begins with the superblock.
    let superblock = regions.next().expect("a superblock");
    let block_size = plan.block_size();
    let windows = Mutex::new(Windows {
        blocks: WINDOW_BYTES / u64::from(block_size),
        regions,
        rest: None,
    });
    let cloning = AtomicBool::new(true);
    let done = workers::run(options.threads, |failed| {
        let mut worker = Worker {
            plan,
            opener: files.opener(plan.tree()),
            output,
            path,
            cloning: &cloning,
            write_back: options.write_back,
            buffer: vec![0; WINDOW_BYTES as usize],
            start: 0,
            filled: 0,
            done: Done::default(),
        };
        let mut window = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            control.check()?;
            // The lock is never poisoned: nothing panics while it is held.
            let mut queue = windows.lock().unwrap_or_else(PoisonError::into_inner);
            let more = queue.next_window(&mut window);
            drop(queue);
            if !more {
                break;
            }
            worker.carry_out(&window)?;
            control.advance(window.iter().map(Region::bytes).sum());
        }
        Ok(worker.done)
    })?;
    let written: u64 = done.iter().map(|done| done.written).sum();
    let cloned: u64 = done.iter().map(|done| done.cloned).sum();

    let mut block = vec![0; superblock.bytes() as usize];
    plan.encode(&superblock, &mut block);
    write_all_at(output, &block, superblock.offset(), path)?;
    Ok(Written {
        bytes: written + cloned + superblock.bytes(),
        cloned,
        method: if cloned > 0 {
            "reflink, read+pwrite"
        } else {
            "read+pwrite"
        },
    })
}

/// Cuts the regions into windows.
struct Windows<'a> {
    /// Blocks of a window.
    blocks: u64,
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
            if !follows || blocks == self.blocks {
                self.rest = Some(region);
                break;
            }
            let (head, tail) = region.split(self.blocks - blocks);
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

/// What one thread did.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    written: u64,
    cloned: u64,
}

/// One thread's means.
struct Worker<'a> {
    plan: &'a Plan<'a>,
    opener: Box<dyn Opener + 'a>,
    output: &'a File,
    path: &'a Path,
    /// Whether blocks can be shared, as far as is known.
    cloning: &'a AtomicBool,
    write_back: bool,
    /// Bytes put together but not written: `filled` of them, for the place
    /// `start`.
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
    done: Done,
}

impl Worker<'_> {
    /// Writes the regions of a window.
    fn carry_out(&mut self, window: &[Region]) -> Result<()> {
        for region in window {
            if let Some(rest) = self.share(*region)? {
                self.put(&rest)?;
            }
        }
        self.flush()
    }

    fn put(&mut self, region: &Region) -> Result<()> {
        if self.filled == 0 {
            self.start = region.offset();
        }
        let end = self.filled + region.bytes() as usize;
        let out = &mut self.buffer[self.filled..end];
        fill_region(self.plan, &mut *self.opener, region, out)?;
        self.filled = end;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = &self.buffer[..self.filled];
        write_all_at(self.output, bytes, self.start, self.path)?;
        if self.write_back {
            // Not all file systems can; the final sync does what was not begun.
            let _ = begin_write_back(self.output, self.start, bytes.len() as u64);
        }
        self.done.written += bytes.len() as u64;
        self.filled = 0;
        Ok(())
    }

    /// Shares the whole blocks of a region with the file they come from, where
    /// the file systems can. Returns what of it is left to be written.
    fn share(&mut self, region: Region) -> Result<Option<Region>> {
        if !self.cloning.load(Ordering::Relaxed) {
            return Ok(Some(region));
        }
        let Some((content, size, offset)) = self.plan.data(&region) else {
            return Ok(Some(region));
        };
        let blocks =
            (size.saturating_sub(offset) / u64::from(self.plan.block_size())).min(region.blocks);
        let bytes = blocks * u64::from(self.plan.block_size());
        if bytes < SHARE_BYTES {
            return Ok(Some(region));
        }
        let Opened::File(file) = self.opener.open(content)? else {
            return Ok(Some(region));
        };
        match clone_range(&file, offset, bytes, self.output, region.offset()) {
            Ok(()) => {}
            // Not this one: its file system has larger blocks, or it is a
            // swap file, or something else of its own.
            Err(Errno::INVAL | Errno::PERM | Errno::TXTBSY) => return Ok(Some(region)),
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => {
                return Err(Error::io("write", self.path)(error));
            }
            // None at all: another file system, or one that cannot.
            Err(_) => {
                self.cloning.store(false, Ordering::Relaxed);
                return Ok(Some(region));
            }
        }
        self.opener.still_same(content, size, &file)?;
        self.done.cloned += bytes;
        self.flush()?;
        let (_, rest) = region.split(blocks);
        Ok(rest)
    }
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
    let (file, result) = match opener.open(content)? {
        Opened::Bytes(bytes) => {
            let offset = offset as usize;
            data.copy_from_slice(&bytes[offset..offset + there]);
            return Ok(());
        }
        Opened::File(file) => {
            let result = read_exact_at(file.as_fd(), data, offset);
            (file, result)
        }
    };
    opener.still_same(content, size, &file)?;
    result.map_err(|fault| fault.into_error(size, || opener.path(content)))
}
