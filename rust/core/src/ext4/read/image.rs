//! Bounded reads of a file that may be anything.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom};

use crate::error::{Error, Result};

/// An opened image.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Image {
    /// Opens a regular file or a block device, through symlinks.
    ///
    /// # Errors
    /// When it is anything else, or cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
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
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from byte `at` on; `false` when the file ends before.
    ///
    /// # Errors
    /// When the device or the file system below fails.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<bool> {
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

    /// Where the next data is, from byte `at` on: what is before it is a hole,
    /// and reads as zeros. The file's end when there is none; `at` where the
    /// host does not tell holes.
    ///
    /// # Errors
    /// When the device or the file system below fails.
    pub fn next_data(&self, at: u64) -> Result<u64> {
        use rustix::io::Errno;
        match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(data) => Ok(data),
            Err(Errno::NXIO) => Ok(self.size.max(at)),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(at),
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
