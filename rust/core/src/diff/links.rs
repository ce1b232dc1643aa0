//! Which names are one inode.
//!
//! Every name of an inode with several is kept with its number in the walk,
//! which is the same for both trees. So two inodes have the same names when they
//! have the same numbers.

use std::collections::HashMap;

use super::report::Group;
use super::walk::{Seen, Visit};
use super::Ignore;
use crate::error::Result;
use crate::tree::{Entry, NameRef, NodeId, Tree};

/// A name of an inode with several names.
#[derive(Clone, Copy)]
struct Name {
    node: NodeId,
    number: u32,
    holder: NodeId,
    name: NameRef,
}

pub(super) struct Links<'a> {
    trees: [&'a Tree; 2],
    ignored: bool,
    /// Once sorted: by inode, and the names of one in the order of the walk.
    names: [Vec<Name>; 2],
    /// Whether these two inodes have the same names.
    same: HashMap<(NodeId, NodeId), bool>,
    /// The names of directories, once they are asked for.
    directories: [Option<HashMap<NodeId, NameRef>>; 2],
}

impl<'a> Links<'a> {
    pub(super) fn new(trees: [&'a Tree; 2], ignore: Ignore) -> Self {
        Self {
            trees,
            ignored: ignore.contains(Ignore::LINKS),
            names: [Vec::new(), Vec::new()],
            same: HashMap::new(),
            directories: [None, None],
        }
    }

    /// To be told of every name, in the order of the walk.
    pub(super) fn note(&mut self, visit: Visit<'_>) -> Result<()> {
        if self.ignored {
            return Ok(());
        }
        for side in [0, 1] {
            let (Some(Entry { name, node }), Some(holder)) =
                (visit.entries[side], visit.holders[side])
            else {
                continue;
            };
            if self.trees[side].node(node).links > 1 {
                self.names[side].push(Name {
                    node,
                    number: visit.number,
                    holder,
                    name,
                });
            }
        }
        Ok(())
    }

    /// To be called between the walks.
    pub(super) fn sort(&mut self) {
        for names in &mut self.names {
            // Stable: the order of the walk stays, whatever its numbers.
            names.sort_by_key(|name| name.node);
        }
    }

    fn of(&self, side: usize, node: NodeId) -> &[Name] {
        let names = &self.names[side];
        let start = names.partition_point(|name| name.node < node);
        let count = names[start..].partition_point(|name| name.node == node);
        &names[start..start + count]
    }

    /// The two groups of names, if they are not the same.
    pub(super) fn differ(&mut self, visit: Visit<'_>, a: NodeId, b: NodeId) -> Option<[Group; 2]> {
        debug_assert!(matches!(visit.seen, Seen::Both(..)));
        let single = self.trees[0].node(a).links < 2 && self.trees[1].node(b).links < 2;
        if self.ignored || single {
            return None;
        }
        // Types that differ say enough, and directories have one name.
        let is_directory = |side: usize, node| self.trees[side].directory(node).is_some();
        if is_directory(0, a) || is_directory(1, b) {
            return None;
        }
        let same = match self.same.get(&(a, b)) {
            Some(&same) => same,
            None => {
                let same = self.compare(a, b);
                self.same.insert((a, b), same);
                same
            }
        };
        if same {
            return None;
        }
        Some([self.group(0, a, visit), self.group(1, b, visit)])
    }

    fn compare(&self, a: NodeId, b: NodeId) -> bool {
        let (a, b) = (self.of(0, a), self.of(1, b));
        // Of the names, excluded ones are not here: one or none is alike.
        a.len().max(1) == b.len().max(1)
            && (a.len() < 2 || a.iter().zip(b).all(|(a, b)| a.number == b.number))
    }

    fn group(&mut self, side: usize, node: NodeId, visit: Visit<'_>) -> Group {
        let count = self.of(side, node).len();
        if count < 2 {
            return Group {
                count: 1,
                first: vec![visit.path.to_vec()],
            };
        }
        // Made anew for each of the names: paths have no limit, and kept ones
        // would take any memory.
        let names: Vec<Name> = self.of(side, node)[..count.min(Group::SHOWN)].to_vec();
        Group {
            count: count as u64,
            first: names.iter().map(|name| self.path(side, name)).collect(),
        }
    }

    fn path(&mut self, side: usize, name: &Name) -> Vec<u8> {
        let tree = self.trees[side];
        let directories = self.directories[side].get_or_insert_with(|| directory_names(tree));
        let mut names = vec![name.name];
        let mut at = name.holder;
        while at != tree.root() {
            let (Some(&name), Some(directory)) = (directories.get(&at), tree.directory(at)) else {
                break;
            };
            names.push(name);
            at = directory.parent;
        }
        let mut path = Vec::new();
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(tree.name(name));
        }
        path
    }
}

fn directory_names(tree: &Tree) -> HashMap<NodeId, NameRef> {
    let mut names = HashMap::new();
    for (id, _) in tree.nodes() {
        let Some(directory) = tree.directory(id) else {
            continue;
        };
        for entry in &directory.entries {
            if tree.directory(entry.node).is_some() {
                names.insert(entry.node, entry.name);
            }
        }
    }
    names
}
