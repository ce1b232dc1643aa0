//! Paths, as a process sees them that is chrooted into the tree.

use super::inject::{push_components, MAX_SYMLINKS};
use super::{Kind, NodeId, Tree};

impl Tree {
    /// The inode at `path`, through symlinks, the last one too. `None` where
    /// the kernel would find nothing: a name is missing, something on the way
    /// is no directory, or there are more than 40 symlinks.
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<NodeId> {
        let mut here = self.root();
        let mut links = 0;
        // Names still to be walked, the next one last.
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        push_components(&mut ahead, path);
        while let Some(name) = ahead.pop() {
            // `None` for what is no directory.
            let directory = self.directory(here)?;
            if name == b".." {
                here = directory.parent;
                continue;
            }
            let next = self.lookup(here, &name)?;
            let Kind::Symlink(target) = self.node(next).kind else {
                here = next;
                continue;
            };
            links += 1;
            if links > MAX_SYMLINKS {
                return None;
            }
            let target = self.name(target);
            if target.first() == Some(&b'/') {
                here = self.root();
            }
            push_components(&mut ahead, target);
        }
        Some(here)
    }
}
