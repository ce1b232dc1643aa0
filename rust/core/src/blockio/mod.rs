//! Moves bytes from where they are into the image.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::error::Result;
use crate::tree::{ContentId, Tree};

/// An opened content.
#[derive(Debug)]
pub enum Opened<'a> {
    /// A file, open for reading, that was compared with what the scan saw
    /// (inode, size, mtime): see [`crate::tree::Identity`].
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
    /// Opens a content whose file had `size` bytes at the scan. A file that is
    /// another one now, or has another size or mtime, is
    /// [`crate::Error::LayerChanged`].
    fn open(&mut self, content: ContentId, size: u64) -> Result<Opened<'_>>;

    /// Compares again after the data was read from `file`, which [`Self::open`]
    /// gave: what was written to meanwhile may have been read half old, half
    /// new.
    fn still_same(&self, content: ContentId, size: u64, file: &OwnedFd) -> Result<()>;

    /// The host path, for messages.
    fn path(&self, content: ContentId) -> PathBuf;
}
