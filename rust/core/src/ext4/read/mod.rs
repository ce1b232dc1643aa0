//! Reading images that may be anyone's: pure decoders of the on-disk nouns, and
//! bounded reads.
//!
//! Policy of this module: no policy. A decoder gives what the bytes say, `None`
//! or a [`Fault`] for nonsense, never a panic; what is right or wrong is for
//! the caller. Nothing is taken from [`super::format`]: a reader that shared
//! code with the writer would share its faults. Names and offsets are the
//! kernel's.

pub mod bytes;
pub mod checksum;
pub mod dirent;
pub mod extent;
pub mod features;
pub mod filesystem;
pub mod geometry;
pub mod group_desc;
pub mod hash;
pub mod htree;
pub mod image;
pub mod inode;
pub mod journal;
pub mod quota;
pub mod runs;
pub mod superblock;
pub mod xattr;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The device or the file system below failed, or the work was stopped.
    #[error(transparent)]
    Host(#[from] crate::Error),
    /// What the image says makes no sense: a sentence with place and numbers.
    #[error("{0}")]
    Nonsense(String),
}

/// Of functions that read images.
pub type Read<T> = std::result::Result<T, Fault>;
