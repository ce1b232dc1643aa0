//! Bounded reads of a file that may be anything.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom};

use crate::error::{Error, Result};

/// An opened image.
pub(super) struct Image {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Image {
    /// Opens a regular file or a block device, through symlinks.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // The type first: opening other devices can have effects, and without
        // O_NONBLOCK a FIFO put there meanwhile would block for ever.
        let stat = rustix::fs::stat(path).map_err(Error::io("open", path))?;
        demand_image(stat.st_mode, path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let stat = rustix::fs::fstat(&file).map_err(Error::io("read", path))?;
        demand_image(stat.st_mode, path)?;
        let size = match FileType::from_raw_mode(stat.st_mode) {
            // stat tells no size of a device.
            FileType::BlockDevice => {
                rustix::fs::seek(&file, SeekFrom::End(0)).map_err(Error::io("read", path))?
            }
            _ => u64::try_from(stat.st_size).unwrap_or(0),
        };
        Ok(Self {
            file: File::from(file),
            path: path.to_path_buf(),
            size,
        })
    }

    /// Its size in bytes when it was opened.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from byte `at` on; `false` when the file ends before.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> Result<bool> {
        let fits = at
            .checked_add(buffer.len() as u64)
            .is_some_and(|end| end <= self.size);
        if !fits {
            return Ok(false);
        }
        match self.file.read_exact_at(buffer, at) {
            Ok(()) => Ok(true),
            // It was cut since it was opened.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::io("read", &self.path)(error)),
        }
    }
}

fn demand_image(mode: u32, path: &Path) -> Result<()> {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        FileType::Directory => "a directory",
        FileType::CharacterDevice => "a character device",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        _ => "of an unknown type",
    };
    Err(Error::io("read", path)(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("it is {kind}; an image is a regular file or a block device"),
    )))
}

/// A little-endian number at a byte offset of a buffer of fixed size.
///
/// # Panics
/// When the buffer ends before: a fault of the caller's code, for offsets are
/// constants and buffers are of sizes that were checked.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// See [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A number that is kept in two 32-bit fields.
pub(super) fn hilo(high: u32, low: u32) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}
