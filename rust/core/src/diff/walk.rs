//! Walks two trees at once, in the order of the paths' bytes.
//!
//! That is not the order of a walk by names: "/a-b" comes before "/a/c", for
//! "-" comes before "/". So the entries of a directory wait until its own path
//! with a "/" behind has its turn among its siblings.

use super::excluded::Excluded;
use crate::control::Control;
use crate::error::Result;
use crate::tree::{Entry, NodeId, Tree};

/// Which trees have a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// Both.
    Both(NodeId, NodeId),
    /// One of them.
    Only(usize, NodeId),
}

/// A name of the walk.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    /// The absolute path.
    pub(super) path: &'a [u8],
    /// Which number the name has in a walk that goes into every directory.
    pub(super) number: u32,
    /// Who has it.
    pub(super) seen: Seen,
    /// The directories that hold it.
    pub(super) holders: [Option<NodeId>; 2],
    /// Its entries there; none for the root.
    pub(super) entries: [Option<Entry>; 2],
}

/// A directory that is being walked.
struct Frame {
    /// Its node in each tree.
    nodes: [Option<NodeId>; 2],
    /// The next entry in each tree.
    next: [usize; 2],
    /// How long its path with a "/" behind is.
    prefix: usize,
    /// Where its waiting directories begin.
    waiting: usize,
}

/// A directory whose entries wait for their turn.
struct Waiting {
    nodes: [Option<NodeId>; 2],
    /// An entry that has its name, and whose tree that is.
    entry: (usize, Entry),
}

/// Visits every name of both trees, the root first. `visit` says whether to go
/// into a directory; [`Visit::number`]s are right as long as it always does.
pub(super) fn walk(
    trees: [&Tree; 2],
    excluded: &Excluded,
    control: &Control,
    mut visit: impl FnMut(Visit<'_>) -> Result<bool>,
) -> Result<()> {
    let roots = [trees[0].root(), trees[1].root()];
    let mut number = 0u32;
    let mut path = vec![b'/'];
    let into = visit(Visit {
        path: &path,
        number,
        seen: Seen::Both(roots[0], roots[1]),
        holders: [None, None],
        entries: [None, None],
    })?;
    if !into {
        return Ok(());
    }
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut frames = vec![Frame {
        nodes: [Some(roots[0]), Some(roots[1])],
        next: [0, 0],
        prefix: 1,
        waiting: 0,
    }];
    while let Some(frame) = frames.last_mut() {
        path.truncate(frame.prefix);
        let entries = next_entries(trees, excluded, frame);
        let name = match entries {
            [Some(entry), _] => Some(trees[0].name(entry.name)),
            [None, Some(entry)] => Some(trees[1].name(entry.name)),
            [None, None] => None,
        };
        // The last one that waits is the first by its path: see the head.
        if waiting.len() > frame.waiting {
            let (side, entry) = waiting[waiting.len() - 1].entry;
            let first = trees[side].name(entry.name);
            if name.is_none_or(|name| comes_before(first, name)) {
                control.check()?;
                path.extend_from_slice(first);
                path.push(b'/');
                let frame = Frame {
                    // OK to default: it was looked at just now.
                    nodes: waiting.pop().map(|one| one.nodes).unwrap_or_default(),
                    next: [0, 0],
                    prefix: path.len(),
                    waiting: waiting.len(),
                };
                frames.push(frame);
                continue;
            }
        }
        let Some(name) = name else {
            frames.pop();
            continue;
        };
        path.extend_from_slice(name);
        // Two trees hold less than 2^33 names, and these are only told apart
        // among the names of one inode.
        number = number.wrapping_add(1);
        let nodes = entries.map(|entry| entry.map(|entry| entry.node));
        let seen = match nodes {
            [Some(a), Some(b)] => Seen::Both(a, b),
            [Some(a), None] => Seen::Only(0, a),
            [None, Some(b)] => Seen::Only(1, b),
            [None, None] => continue,
        };
        for side in [0, 1] {
            frame.next[side] += usize::from(entries[side].is_some());
        }
        let into = visit(Visit {
            path: &path,
            number,
            seen,
            holders: frame.nodes,
            entries,
        })?;
        if !into {
            continue;
        }
        let below = [0, 1].map(|side| {
            let node: Option<NodeId> = nodes[side];
            node.filter(|&node| trees[side].directory(node).is_some())
        });
        let entry = match (entries, below) {
            ([Some(entry), _], [Some(_), _]) => (0, entry),
            ([_, Some(entry)], [_, Some(_)]) => (1, entry),
            _ => continue,
        };
        waiting.push(Waiting {
            nodes: below,
            entry,
        });
    }
    Ok(())
}

/// The entries of the next name, in the trees that have it.
fn next_entries(trees: [&Tree; 2], excluded: &Excluded, frame: &mut Frame) -> [Option<Entry>; 2] {
    let mut next = [None, None];
    for side in [0, 1] {
        let Some(node) = frame.nodes[side] else {
            continue;
        };
        let entries = trees[side]
            .directory(node)
            .map_or(&[][..], |directory| &directory.entries);
        while excluded.has(side, node, frame.next[side]) {
            frame.next[side] += 1;
        }
        next[side] = entries.get(frame.next[side]).copied();
    }
    if let [Some(a), Some(b)] = next {
        match trees[0].name(a.name).cmp(trees[1].name(b.name)) {
            std::cmp::Ordering::Less => next[1] = None,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => next[0] = None,
        }
    }
    next
}

/// Whether what is below the directory `first` comes before its later sibling
/// `name`.
fn comes_before(first: &[u8], name: &[u8]) -> bool {
    match name.strip_prefix(first) {
        None => true,
        Some(rest) => rest.first().is_some_and(|&byte| byte > b'/'),
    }
}

/// How many names there are at all depths below `node` of one tree.
pub(super) fn below(trees: [&Tree; 2], side: usize, node: NodeId, excluded: &Excluded) -> u64 {
    let mut count = 0;
    let mut pending = vec![node];
    while let Some(node) = pending.pop() {
        let Some(directory) = trees[side].directory(node) else {
            continue;
        };
        for (at, entry) in directory.entries.iter().enumerate() {
            if excluded.has(side, node, at) {
                continue;
            }
            count += 1;
            if trees[side].directory(entry.node).is_some() {
                pending.push(entry.node);
            }
        }
    }
    count
}
