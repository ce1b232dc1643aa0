//! Where the bytes of regular files are.

use std::path::PathBuf;

use super::names::NameRef;
use super::node::{id, Timestamp};

id! {
    /// Names a file's content.
    ContentId
}
id! {
    /// Names a layer's directory.
    SourceDirId
}

/// A directory of a layer, as a chain of names from the layer's root, so that
/// whoever reads it goes there by directory descriptors.
#[derive(Clone, Copy, Debug)]
pub struct SourceDir {
    /// Index of the layer, base first.
    pub layer: u32,
    /// The directory that holds it and its name there; `None` for the layer's
    /// root.
    pub parent: Option<(SourceDirId, NameRef)>,
}

/// What a file was when its layer was scanned. Whoever opens it later compares,
/// so that a file that changed meanwhile is an error and no silent mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `st_ino`.
    pub inode: u64,
    /// `st_mtime`.
    pub mtime: Timestamp,
}

/// A part of a file that holds data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Number of bytes, at least 1.
    pub len: u64,
}

/// The parts of a file that hold data, ascending, neither touching nor
/// overlapping; all the rest up to its size reads as zeros.
pub type HoleMap = Box<[Extent]>;

/// Where a file's bytes are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a file of a layer.
    Layer {
        /// The layer's directory that holds the file.
        directory: SourceDirId,
        /// Its name there.
        name: NameRef,
        /// What it was when it was scanned.
        identity: Identity,
        /// `None`: no holes.
        data: Option<HoleMap>,
    },
    /// In a host file outside the layers, injected. Symlinks are followed.
    Host {
        /// Its path.
        path: PathBuf,
        /// What it was when it was looked at.
        identity: Identity,
    },
    /// Here.
    Bytes(Box<[u8]>),
}
