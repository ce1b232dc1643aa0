//! Bounded reads of a file that may be anything.

use std::collections::HashMap;
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
    /// What a journal says instead, by block.
    patches: HashMap<u64, Patch>,
    /// Those blocks, in order.
    patched: Vec<u64>,
    /// Bytes of them.
    block_size: u64,
}

/// A block that is read from another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The block that has its bytes.
    pub from: u64,
    /// Its first four bytes are those that a block of a journal begins with,
    /// and lie there as zeros.
    pub escaped: bool,
}

/// `JBD2_MAGIC_NUMBER`, as it lies in a block.
const ESCAPED: [u8; 4] = 0xc03b_3998_u32.to_be_bytes();

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
            patches: HashMap::new(),
            patched: Vec::new(),
            block_size: 0,
        })
    }

    /// Its size in bytes when it was opened.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// From now on these blocks, of so many bytes, are read from other places.
    pub fn patch(&mut self, block_size: u32, patches: HashMap<u64, Patch>) {
        self.block_size = block_size.into();
        self.patched = patches.keys().copied().collect();
        self.patched.sort_unstable();
        self.patches = patches;
    }

    /// Fills `buffer` from byte `at` on; `false` when the file ends before.
    ///
    /// # Errors
    /// When the device or the file system below fails.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<bool> {
        if self.patches.is_empty() || at.checked_add(buffer.len() as u64).is_none() {
            return self.read_unpatched(at, buffer);
        }
        let mut done = 0;
        while done < buffer.len() {
            let here = at + done as u64;
            let (block, inside) = (here / self.block_size, here % self.block_size);
            let room = buffer.len() - done;
            // OK to convert: a block has at most 64 KiB.
            let len = room.min((self.block_size - inside) as usize);
            let part = &mut buffer[done..done + len];
            let patch = self.patches.get(&block);
            let from = patch.map_or(here, |patch| patch.from * self.block_size + inside);
            if !self.read_unpatched(from, part)? {
                return Ok(false);
            }
            if patch.is_some_and(|patch| patch.escaped) {
                for (byte, magic) in part.iter_mut().zip(ESCAPED.iter().skip(inside as usize)) {
                    *byte = *magic;
                }
            }
            done += len;
        }
        Ok(true)
    }

    fn read_unpatched(&self, at: u64, buffer: &mut [u8]) -> Result<bool> {
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
    /// host does not tell holes. What a journal says of a hole is data as well.
    ///
    /// # Errors
    /// When the device or the file system below fails.
    pub fn next_data(&self, at: u64) -> Result<u64> {
        let data = self.next_unpatched(at)?;
        let block = at.checked_div(self.block_size).unwrap_or(0);
        let next = self.patched.partition_point(|patched| *patched < block);
        Ok(self.patched.get(next).map_or(data, |patched| {
            data.min((patched * self.block_size).max(at))
        }))
    }

    fn next_unpatched(&self, at: u64) -> Result<u64> {
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
