//! The file that is grown: bounded reads, and writes that can be listed.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, SeekFrom};
use rustix::io::Errno;

use crate::blockio::{next_data, read_exact_at, write_all_at, NextData};
use crate::error::{Error, Result};

/// What reached the file, in order: what a test of crash safety replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The file's length was set.
    Length(u64),
    /// These bytes were written at that byte.
    Write(u64, Vec<u8>),
    /// Everything before is on the disk before anything that follows.
    Sync,
}

/// An image, open for reading and writing.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    path: PathBuf,
    size: u64,
    device: bool,
    sync: bool,
    events: Option<Vec<Event>>,
    written: u64,
}

impl Disk {
    /// Takes an open file; `path` is for messages. Without `sync` nothing waits
    /// for the disk; with `record` every change is remembered.
    pub(super) fn new(file: File, path: &Path, sync: bool, record: bool) -> Result<Self> {
        let stat = rustix::fs::fstat(&file).map_err(Error::io("read", path))?;
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        let size = if device {
            rustix::fs::seek(&file, SeekFrom::End(0)).map_err(Error::io("read", path))?
        } else {
            u64::try_from(stat.st_size).unwrap_or(0)
        };
        Ok(Self {
            file,
            path: path.to_path_buf(),
            size,
            device,
            sync,
            events: record.then(Vec::new),
            written: 0,
        })
    }

    /// For messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is a block device, whose size is as it is.
    pub(super) const fn is_device(&self) -> bool {
        self.device
    }

    /// Bytes written so far.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// What was recorded.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        self.events.take().unwrap_or_default()
    }

    /// `len` bytes from byte `at` on.
    pub(super) fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.fill(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from byte `at` on.
    pub(super) fn fill(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, bytes, at)
            .map_err(|fault| fault.into_error(self.size, || self.path.clone()))
    }

    /// Writes `bytes` at byte `at`.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, bytes, at, &self.path)?;
        self.written += bytes.len() as u64;
        if let Some(events) = &mut self.events {
            events.push(Event::Write(at, bytes.to_vec()));
        }
        Ok(())
    }

    /// Makes a file longer, or as long as it was.
    pub(super) fn set_len(&mut self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .map_err(Error::io("size", &self.path))?;
        self.size = len;
        if let Some(events) = &mut self.events {
            events.push(Event::Length(len));
        }
        Ok(())
    }

    /// Makes a range read as zeros; in a file it becomes a hole.
    pub(super) fn zero(&mut self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let found = if self.device {
                NextData::Part(at, range.end)
            } else {
                next_data(&self.file, at, range.end)
                    .map_err(Error::io("find the holes of", &self.path))?
            };
            let part = match found {
                NextData::Nothing => return Ok(()),
                NextData::Part(start, end) => start..end,
                NextData::Unknown => at..range.end,
            };
            self.zero_data(part.clone())?;
            at = part.end;
        }
        Ok(())
    }

    fn zero_data(&mut self, range: Range<u64>) -> Result<()> {
        let flags = if self.device {
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE
        } else {
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
        };
        let len = range.end - range.start;
        // Replayed from the record it is a write of zeros.
        if self.events.is_none()
            && rustix::fs::fallocate(&self.file, flags, range.start, len).is_ok()
        {
            return Ok(());
        }
        let zeros = vec![0; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            // OK to cut: at most a mebibyte.
            let step = (range.end - at).min(1 << 20) as usize;
            self.write(at, &zeros[..step])?;
            at += step as u64;
        }
        Ok(())
    }

    /// Takes the room for a later write, so that a full disk is met now.
    pub(super) fn reserve(&self, at: u64, len: u64) -> Result<()> {
        if self.device {
            return Ok(());
        }
        let keep = FallocateFlags::KEEP_SIZE;
        let take = |flags| rustix::fs::fallocate(&self.file, flags, at, len);
        // What is shared with a clone needs room of its own (XFS); where that is
        // not known, a place for each block at least.
        let taken = match take(keep | FallocateFlags::UNSHARE_RANGE) {
            Err(Errno::OPNOTSUPP | Errno::INVAL) => take(keep),
            taken => taken,
        };
        match taken {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => {
                Err(Error::io("write", &self.path)(error))
            }
            // Not every file system can; then a write will tell.
            _ => Ok(()),
        }
    }

    /// What was written so far is on the disk before anything that follows.
    pub(super) fn barrier(&mut self) -> Result<()> {
        if self.sync {
            self.file
                .sync_all()
                .map_err(Error::io("sync", &self.path))?;
        }
        if let Some(events) = &mut self.events {
            events.push(Event::Sync);
        }
        Ok(())
    }
}
