//! How much is in a tree.

use super::{Kind, Tree};

/// Visible inodes by type, names, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names in all directories, without "." and "..".
    pub entries: u64,
    /// Directories, with the root.
    pub directories: u64,
    /// Regular files (inodes, not names).
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Device nodes, FIFOs and sockets.
    pub special: u64,
    /// Names beyond the first of an inode.
    pub hard_links: u64,
    /// Sum of the files' sizes in bytes, holes included.
    pub bytes: u64,
}

impl Tree {
    /// Counts what is visible.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (id, node) in self.nodes() {
            if node.links == 0 && id != self.root() {
                continue;
            }
            counts.entries += u64::from(node.links);
            match node.kind {
                Kind::Directory(_) => counts.directories += 1,
                Kind::File { size, .. } => {
                    counts.files += 1;
                    counts.bytes = counts.bytes.saturating_add(size);
                }
                Kind::Symlink(_) => counts.symlinks += 1,
                _ => counts.special += 1,
            }
            counts.hard_links += u64::from(node.links.saturating_sub(1));
        }
        counts
    }
}
