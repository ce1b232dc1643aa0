//! Reads the layers of a chain and merges them by the kernel's rules.
//!
//! ```text
//! chain      the layers' roots, opened and checked
//! scan       all layers, in parallel  -> scanned  (entry, xattrs)
//! merge      lookup, redirect         -> tree, and what became of each entry
//! place      the order in which numbers and data are given out
//! flags      what chattr set
//! holes      where the visible sparse files hold data
//! files      opens the files that the tree tells of
//! walk       directory descriptors, whatever the depth
//! ```
//!
//! No path is ever walked as a string from the host's root, and no symlink of
//! a layer is ever followed: layers are foreign input.

mod access;
mod chain;
mod entry;
mod fates;
mod files;
mod flags;
mod holes;
mod inspect;
mod list;
mod lookup;
mod merge;
mod mounts;
mod place;
mod redirect;
mod scan;
mod scanned;
mod unreadable;
mod walk;
mod xattrs;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::tree::Tree;

pub use files::{LayerFiles, Statuses};

/// How a chain's layers are to be understood.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeOptions {
    /// The store was mounted with `userxattr`: marks are `user.overlay.*`.
    pub userxattr: bool,
    /// The store was written by fuse-overlayfs.
    pub fuse_overlayfs: bool,
    /// For a layer by itself: overlay's marks are shown as what they are on
    /// disk.
    pub raw: bool,
    /// Files and directories keep what `chattr` set of them
    /// ([`crate::tree::InodeFlags`]); otherwise nobody asks for it.
    pub inode_flags: bool,
    /// The directory is a mounted overlay, whose `readdir` and `st_nlink` are
    /// those of its layers: what `lstat` does not find is not there, and any
    /// two names may be one inode.
    pub overlay_mount: bool,
}

/// Merges `layers`, base first, into what a kernel overlay mount of them would
/// show, with `threads` threads. Returns the tree, the way to its files' data,
/// and warnings, each a full sentence with its path. `enter` is told when the
/// scan and when the merge begins.
pub fn merge(
    layers: &[PathBuf],
    options: MergeOptions,
    threads: usize,
    control: &Control,
    enter: impl FnMut(Phase),
) -> Result<(Tree, LayerFiles, Vec<String>)> {
    merge_in_way(None, layers, options, threads, control, enter)
}

/// [`merge`], with attributes read in that way; `None`: the best.
fn merge_in_way(
    way: Option<xattrs::Way>,
    layers: &[PathBuf],
    options: MergeOptions,
    threads: usize,
    control: &Control,
    mut enter: impl FnMut(Phase),
) -> Result<(Tree, LayerFiles, Vec<String>)> {
    enter(Phase::Scan);
    control.begin(Phase::Scan, 0);
    let access = access::Access::probe();
    let chain = chain::Chain::open(layers, &access)?;
    let mut warnings = Vec::new();
    access.warn(&chain, options, &mut warnings);
    let mut scan = scan::scan(&chain, options, &access, way, threads.max(1), control)?;

    enter(Phase::Merge);
    control.begin(Phase::Merge, scan.len());
    let (mut tree, mut fates) = merge::merge(&chain, &mut scan, options, control)?;
    warnings.append(&mut fates.warnings);
    let sparse = std::mem::take(&mut fates.sparse);
    place::place(
        &mut tree,
        &scan,
        fates,
        holes::Prober::new(&chain, &access),
        control,
    )?;
    // The scan takes as much memory as the tree: it goes before the next step.
    drop(scan);
    let files = LayerFiles::new(chain, access);
    holes::find(&mut tree, &files, &sparse, threads.max(1), control)?;
    Ok((tree, files, warnings))
}

/// Reads one layer as it lies on disk, marks and all ([`MergeOptions::raw`]);
/// with `inode_flags` as in [`MergeOptions`].
pub fn read_raw(
    layer: &Path,
    inode_flags: bool,
    threads: usize,
    control: &Control,
) -> Result<(Tree, LayerFiles)> {
    let options = MergeOptions {
        inode_flags,
        ..MergeOptions::default()
    };
    read_alone(layer, options, threads, control)
}

/// `OVERLAYFS_SUPER_MAGIC`
const OVERLAYFS: u64 = 0x794c_7630;

/// Reads a directory as the kernel shows it: nothing in it is overlay's mark,
/// and if it is a mounted overlay, it is what is merged there.
pub fn read_directory(
    directory: &Path,
    threads: usize,
    control: &Control,
) -> Result<(Tree, LayerFiles)> {
    let status = rustix::fs::statfs(directory).map_err(Error::io("open", directory))?;
    let options = MergeOptions {
        // The field's type is another one on each architecture.
        overlay_mount: u64::try_from(status.f_type).is_ok_and(|kind| kind == OVERLAYFS),
        ..MergeOptions::default()
    };
    read_alone(directory, options, threads, control)
}

fn read_alone(
    layer: &Path,
    options: MergeOptions,
    threads: usize,
    control: &Control,
) -> Result<(Tree, LayerFiles)> {
    let options = MergeOptions {
        raw: true,
        ..options
    };
    let layers = [layer.to_path_buf()];
    let (tree, files, _) = merge(&layers, options, threads, control, |_| {})?;
    Ok((tree, files))
}
