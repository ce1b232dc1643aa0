//! What is left out of a comparison.

use std::collections::HashSet;

use super::DiffOptions;
use crate::tree::{NodeId, Tree};

/// Entries of both trees, by the directory that holds them and their place in
/// it.
pub(super) struct Excluded([HashSet<(NodeId, usize)>; 2]);

impl Excluded {
    /// Looks the paths up, in each tree by itself; no symlink is followed.
    pub(super) fn new(trees: [&Tree; 2], options: &DiffOptions) -> Self {
        let mut excluded = Self([HashSet::new(), HashSet::new()]);
        for side in [0, 1] {
            for path in &options.exclude {
                if let Some(entry) = find(trees[side], path) {
                    excluded.0[side].insert(entry);
                }
            }
        }
        if !options.strict {
            excluded.lost_and_found(trees);
        }
        excluded
    }

    /// mke2fs makes one in every file system; a directory or a chain has none.
    fn lost_and_found(&mut self, trees: [&Tree; 2]) {
        const PATH: &[u8] = b"lost+found";
        let found = trees.map(|tree| tree.lookup(tree.root(), PATH));
        let (side, node) = match found {
            [Some(node), None] => (0, node),
            [None, Some(node)] => (1, node),
            _ => return,
        };
        let directory = trees[side].directory(node);
        if directory.is_some_and(|directory| directory.entries.is_empty()) {
            self.0[side].extend(find(trees[side], PATH));
        }
    }

    /// Whether the entry at that place of a directory is left out.
    pub(super) fn has(&self, side: usize, directory: NodeId, entry: usize) -> bool {
        !self.0[side].is_empty() && self.0[side].contains(&(directory, entry))
    }
}

/// The entry that a path names.
fn find(tree: &Tree, path: &[u8]) -> Option<(NodeId, usize)> {
    let mut found = None;
    let mut holder = tree.root();
    for name in path.split(|&byte| byte == b'/') {
        if name.is_empty() {
            continue;
        }
        if let Some((directory, at)) = found {
            holder = tree.directory(directory)?.entries.get::<usize>(at)?.node;
        }
        let entries = &tree.directory(holder)?.entries;
        let at = entries
            .binary_search_by(|entry| tree.name(entry.name).cmp(name))
            .ok()?;
        found = Some((holder, at));
    }
    found
}
