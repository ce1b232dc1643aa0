//! Says in what two merged trees differ, as the kernel would show them.
//!
//! ```text
//! walk       both trees at once, in the order of the paths' bytes
//! excluded   what is left out
//! links      which names are one inode
//! content    where the bytes of a side's files come from
//! compare    the bytes of files, by several threads
//! fields     what differs of one name that both trees have
//! report     what is told of it
//! ```
//!
//! The trees are walked twice. The first walk finds the pairs of files whose
//! bytes are to be compared and the names of hard links; then the bytes are
//! compared; the second walk tells the differences, one at a time, so that they
//! need no memory however many there are.

mod compare;
mod content;
mod excluded;
mod fields;
mod links;
mod report;
mod walk;

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;

use bitflags::bitflags;

pub use content::{Contents, Reader};
pub use report::{Change, Counts, Difference, Found, Group, Type};

use crate::control::{Control, Phase};
use crate::error::Result;
use crate::tree::{Kind, NodeId, Tree};
use compare::{Pair, Results};
use excluded::Excluded;
use links::Links;
use walk::{Seen, Visit};

bitflags! {
    /// What is not compared.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ignore: u8 {
        /// Permissions.
        const MODE = 1 << 0;
        /// Owner and group.
        const OWNER = 1 << 1;
        /// Times of the last change of content.
        const MTIME = 1 << 2;
        /// Extended attributes, ACLs among them.
        const XATTRS = 1 << 3;
        /// Which names are one inode.
        const LINKS = 1 << 4;
        /// Files' bytes and sizes.
        const CONTENT = 1 << 5;
    }
}

/// How two trees are compared.
#[derive(Clone, Debug, Default)]
pub struct DiffOptions {
    /// What is not compared.
    pub ignore: Ignore,
    /// Absolute paths that are left out in both trees, with all below them.
    pub exclude: Vec<Vec<u8>>,
    /// Tell each name below a directory that one tree has alone.
    pub all: bool,
    /// Tell of an empty `/lost+found` that one tree has alone as well.
    pub strict: bool,
}

/// One of the two trees.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What is in it.
    pub tree: &'a Tree,
    /// The way to its files' bytes.
    pub files: &'a dyn Contents,
}

impl std::fmt::Debug for Side<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Side").finish_non_exhaustive()
    }
}

/// Tells `tell` every difference, in the order of the paths' bytes, and returns
/// how many there are. Nothing is told before all is known, but for errors of
/// `tell`.
///
/// What cannot be equal is not compared: inode numbers, atime, ctime, crtime,
/// the sizes of directories, and where a file has holes.
///
/// # Errors
/// When a file cannot be read or changed since its tree was made; what `tell`
/// returns; [`crate::Error::Interrupted`].
pub fn diff(
    a: Side<'_>,
    b: Side<'_>,
    options: &DiffOptions,
    threads: usize,
    control: &Control,
    mut tell: impl FnMut(&Difference<'_>) -> Result<()>,
) -> Result<Counts> {
    let trees = [a.tree, b.tree];
    let excluded = Excluded::new(trees, options);
    let mut links = Links::new(trees, options.ignore);
    let mut pairs = Pairs::new(trees, options.ignore);
    walk::walk(trees, &excluded, control, |visit| {
        links.note(visit)?;
        pairs.note(visit)?;
        Ok(true)
    })?;
    links.sort();

    let bytes = pairs.all.iter().map(|pair| pair.size);
    control.begin(Phase::Compare, bytes.fold(0, u64::saturating_add));
    let results = compare::compare(a, b, &pairs.all, threads, control)?;

    let mut pairs = Pairs::new(trees, options.ignore);
    let mut counts = Counts::default();
    let mut changes = Vec::new();
    walk::walk(trees, &excluded, control, |visit| {
        let found = match visit.seen {
            Seen::Both(a, b) => {
                let content = pairs.number(a, b).and_then(|pair| results.first(pair));
                changes.clear();
                fields::compare(trees, a, b, options.ignore, &mut changes);
                if let Some(groups) = links.differ(visit, a, b) {
                    changes.push(Change::Links(groups));
                }
                if let Some(offset) = content {
                    changes.push(Change::Content { offset });
                }
                if changes.is_empty() {
                    return Ok(true);
                }
                counts.changed += 1;
                let below = match (trees[0].directory(a), trees[1].directory(b)) {
                    (Some(_), None) => walk::below(trees, 0, a, &excluded),
                    (None, Some(_)) => walk::below(trees, 1, b, &excluded),
                    _ => 0,
                };
                Found::Changed {
                    changes: &changes,
                    below,
                }
            }
            Seen::Only(side, node) => {
                let below = walk::below(trees, side, node, &excluded);
                counts.only[side] += 1;
                Found::Only {
                    side,
                    kind: Type::of(trees[side].node(node).kind),
                    size: size(trees[side], node),
                    below,
                }
            }
        };
        tell(&Difference {
            path: visit.path,
            found,
        })?;
        // What is below a directory of one tree was counted with it.
        Ok(options.all || is_shared(trees, visit.seen))
    })?;
    Ok(counts)
}

fn is_shared(trees: [&Tree; 2], seen: Seen) -> bool {
    match seen {
        Seen::Both(a, b) => trees[0].directory(a).is_some() == trees[1].directory(b).is_some(),
        Seen::Only(..) => false,
    }
}

fn size(tree: &Tree, node: NodeId) -> Option<u64> {
    match tree.node(node).kind {
        Kind::File { size, .. } => Some(size),
        _ => None,
    }
}

/// Numbers the pairs of files whose bytes are to be compared, each pair of
/// inodes once. Two walks give the same numbers.
struct Pairs<'a> {
    trees: [&'a Tree; 2],
    ignore: Ignore,
    next: u32,
    linked: std::collections::HashMap<(NodeId, NodeId), u32>,
    /// What [`Self::note`] collects.
    all: Vec<Pair>,
}

impl<'a> Pairs<'a> {
    fn new(trees: [&'a Tree; 2], ignore: Ignore) -> Self {
        Self {
            trees,
            ignore,
            next: 0,
            linked: std::collections::HashMap::new(),
            all: Vec::new(),
        }
    }

    fn note(&mut self, visit: Visit<'_>) -> Result<()> {
        let Seen::Both(a, b) = visit.seen else {
            return Ok(());
        };
        let known = self.next;
        if self.number(a, b) != Some(known) {
            return Ok(());
        }
        let kinds = (self.trees[0].node(a).kind, self.trees[1].node(b).kind);
        if let (Kind::File { size, content }, Kind::File { content: other, .. }) = kinds {
            self.all.push(Pair {
                contents: [content, other],
                size,
            });
        }
        Ok(())
    }

    fn number(&mut self, a: NodeId, b: NodeId) -> Option<u32> {
        if self.ignore.contains(Ignore::CONTENT) {
            return None;
        }
        let (a_node, b_node) = (self.trees[0].node(a), self.trees[1].node(b));
        match (a_node.kind, b_node.kind) {
            (Kind::File { size, .. }, Kind::File { size: other, .. })
                if size == other && size > 0 => {}
            _ => return None,
        }
        let next = self.next;
        let number = if a_node.links > 1 && b_node.links > 1 {
            *self.linked.entry((a, b)).or_insert(next)
        } else {
            next
        };
        if number == next {
            // A pair has a name of its own, and there are fewer than 2^32.
            self.next = next.wrapping_add(1);
        }
        Some(number)
    }
}

impl Results {
    fn first(&self, pair: u32) -> Option<u64> {
        self.offset(pair as usize)
    }
}
