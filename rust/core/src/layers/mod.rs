//! Reads the layers of a chain and merges them by the kernel's rules.

use std::path::PathBuf;

use crate::control::{Control, Phase};
use crate::error::Result;
use crate::tree::Tree;

/// How a chain's layers are to be understood.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeOptions {
    /// The store was mounted with `userxattr`: marks are `user.overlay.*`.
    pub userxattr: bool,
    /// The store was written by fuse-overlayfs.
    pub fuse_overlayfs: bool,
}
