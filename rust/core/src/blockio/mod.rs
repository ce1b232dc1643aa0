//! Moves bytes from where they are into the image.

#[cfg(test)]
pub(crate) mod changing;
mod clone;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::tree::{ContentId, Tree};

pub use clone::{clone_file, CloneMethod, CloneReport};

/// An opened content.
#[derive(Debug)]
pub enum Opened<'a> {
    /// A file, open for reading. Nothing read from it counts before
    /// [`Opener::still_same`] was asked.
    File(OwnedFd),
    /// Bytes in memory.
    Bytes(&'a [u8]),
}

/// Gives access to the files' data. Shared by all copying threads.
pub trait ContentStore: Sync {
    /// An opener for one thread, with that thread's cache of open directories:
    /// contents are asked for directory by directory. `tree` is the one whose
    /// contents will be asked for.
    fn opener<'a>(&'a self, tree: &'a Tree) -> Box<dyn Opener + 'a>;
}

/// One thread's way to the files' data.
pub trait Opener {
    /// Opens what has the name of a content now.
    fn open(&mut self, content: ContentId) -> Result<Opened<'_>>;

    /// Compares `file`, which [`Self::open`] gave, with what the scan saw
    /// (inode, mtime: [`crate::tree::Identity`], and the `size`), after the
    /// data was read and before it, or an error of reading it, is made use of:
    /// what was written to meanwhile may have been read half old, half new. A
    /// file that is another one now is [`crate::Error::LayerChanged`].
    ///
    /// Once is enough: what is as it was at the scan now was so all the time
    /// between. And it is one system call less for each file.
    fn still_same(&self, content: ContentId, size: u64, file: &OwnedFd) -> Result<()>;

    /// The host path, for messages.
    fn path(&self, content: ContentId) -> PathBuf;
}

/// What [`next_data`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextData {
    /// Data, from this byte on up to that one.
    Part(u64, u64),
    /// Nothing but a hole.
    Nothing,
    /// The file system cannot tell.
    Unknown,
}

/// The next part with data of a file of `size` bytes, at or behind `at`. It
/// moves the file's offset.
pub fn next_data(file: impl AsFd, at: u64, size: u64) -> Result<NextData, Errno> {
    let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
        Ok(start) if start < size => start,
        // No data up to the end.
        Ok(_) | Err(Errno::NXIO) => return Ok(NextData::Nothing),
        Err(Errno::INVAL | Errno::NOTSUP) => return Ok(NextData::Unknown),
        Err(error) => return Err(error),
    };
    match rustix::fs::seek(&file, SeekFrom::Hole(start)) {
        Ok(end) if end > start => Ok(NextData::Part(start, end.min(size))),
        // Cut off meanwhile, or punched: whoever reads it will see. Taking the
        // rest for data is never wrong.
        Ok(_) | Err(Errno::NXIO) => Ok(NextData::Part(start, size)),
        Err(error) => Err(error),
    }
}

/// Why a file's bytes could not be read.
#[derive(Debug)]
pub enum ReadFault {
    /// The kernel said so.
    Io(Errno),
    /// It ends at this byte.
    Short(u64),
}

impl ReadFault {
    /// The error for a file that had `size` bytes at the scan.
    pub fn into_error(self, size: u64, path: impl FnOnce() -> PathBuf) -> Error {
        match self {
            Self::Io(source) => Error::io("read", path())(source),
            Self::Short(end) => Error::LayerChanged {
                path: path(),
                reason: format!("it had {size} bytes and now ends at {end}"),
            },
        }
    }
}

/// Fills `out` with the bytes of `file` from `offset` on.
pub fn read_exact_at(
    file: impl AsFd,
    mut out: &mut [u8],
    mut offset: u64,
) -> Result<(), ReadFault> {
    while !out.is_empty() {
        match rustix::io::pread(&file, &mut *out, offset) {
            Ok(0) => return Err(ReadFault::Short(offset)),
            Ok(count) => {
                out = &mut out[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ReadFault::Io(errno)),
        }
    }
    Ok(())
}

/// Writes all of `bytes` to `output` at `offset`; `path` is for messages.
pub fn write_all_at(output: &File, mut bytes: &[u8], mut offset: u64, path: &Path) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(output, bytes, offset) {
            Ok(0) => {
                return Err(Error::io("write", path)(std::io::Error::from(
                    std::io::ErrorKind::WriteZero,
                )))
            }
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("write", path)(errno)),
        }
    }
    Ok(())
}
