//! The order in which numbers and data are given out.

use std::collections::{HashMap, HashSet};

use super::random;
use super::support::{Chain, Merged};
use crate::tree::{Kind, NodeId, Slot};

#[test]
fn layer_by_layer_by_path_within_a_layer() {
    let chain = Chain::new(2);
    chain
        .file(0, "z", "")
        .file(0, "a/y", "")
        .file(0, "a/b/x", "")
        .dir(0, "c")
        .file(0, "a-", "");
    chain.file(1, "a/new", "").file(1, "b", "");
    let expected = [
        "D  4/5",
        "N a-",
        "N z",
        "D a 2/2",
        "N a/y",
        "D a/b 1/1",
        "N a/b/x",
        "D c 0/0",
        "D  6/7",
        "N b",
        "D a 3/5",
        "N a/new",
    ];
    assert_eq!(chain.merge().unwrap().slots(), expected);
}

#[test]
fn what_is_hidden_keeps_its_place() {
    let chain = Chain::new(3);
    chain
        .file(0, "d/f", "123")
        .symlink(0, "d/l", "ab")
        .dir(0, "d/s")
        .file(0, "g", "12345");
    chain.file(1, "d/h", "1").dir(1, "d/s").file(1, "d/s/i", "");
    chain.whiteout(2, "d").file(2, "g", "");
    let expected = [
        "D  2/2", "ghost 5", "G+ 3/3", "ghost 3", "ghost 2", "G+ 0/0", "D  3/3", "G 5/5",
        "ghost 1", "G 1/1", "ghost 0", "D  4/4", "N g",
    ];
    assert_eq!(chain.merge().unwrap().slots(), expected);
}

#[test]
fn an_inode_of_several_names_has_one_place_at_the_first() {
    let chain = Chain::new(2);
    chain
        .file(0, "a", "1234")
        .hard_link((0, "a"), (0, "b"))
        .hard_link((0, "a"), (0, "c"));
    chain.file(0, "p", "12").hard_link((0, "p"), (0, "q"));
    chain.whiteout(1, "a").whiteout(1, "p").whiteout(1, "q");
    let merged = chain.merge().unwrap();
    // "b" shows, and stands where "a" was.
    assert_eq!(merged.slots(), ["D  5/5", "N b", "ghost 2", "D  5/5"]);
    check(&merged);
}

#[test]
fn every_inode_has_its_slots_and_nothing_has_one_twice() {
    for seed in 0..60 {
        check(&random::chain(seed).merge().unwrap());
    }
}

/// What must hold for every tree.
pub(super) fn check(merged: &Merged) {
    let tree = &merged.tree;
    let mut nodes = HashSet::new();
    let mut last = HashMap::new();
    for (at, slot) in tree.slots().iter().enumerate() {
        match *slot {
            Slot::Node(node) => {
                assert!(nodes.insert(node), "{node:?} twice");
                assert!(tree.directory(node).is_none());
            }
            Slot::Directory { node, names, bytes } => {
                if let Some((_, before_names, before_bytes)) = last.insert(node, (at, names, bytes))
                {
                    assert!(
                        before_names <= names && before_bytes <= bytes,
                        "they only grow"
                    );
                }
            }
            Slot::Ghost { .. } | Slot::GhostDirectory { .. } => {}
        }
    }
    for (node, path) in merged.paths() {
        let Some(directory) = tree.directory(node) else {
            assert!(nodes.contains(&node), "{path}: no slot");
            continue;
        };
        let (at, names, bytes) = last[&node];
        assert_eq!(directory.last_slot as usize, at, "{path}");
        assert!(directory.entries.len() <= names as usize, "{path}");
        let length: usize = directory.entries.iter().map(|entry| entry.name.len()).sum();
        assert!(length <= bytes as usize, "{path}");
    }
    let visible: HashSet<NodeId> = merged.paths().into_iter().map(|(node, _)| node).collect();
    assert!(nodes
        .iter()
        .chain(last.keys())
        .all(|node| visible.contains(node)));
    assert_eq!(visible.len(), tree.len(), "no inode without a name");
}

/// What of a slot must not hang on the layers above.
#[derive(Debug, PartialEq)]
enum Shape {
    Inode { size: u64 },
    Directory { first: bool, names: u32, bytes: u32 },
}

fn shapes(merged: &Merged) -> Vec<Shape> {
    let mut seen = HashSet::new();
    let slots = merged.tree.slots().iter();
    slots
        .map(|slot| match *slot {
            Slot::Node(node) => Shape::Inode {
                size: match merged.tree.node(node).kind {
                    Kind::File { size, .. } => size,
                    Kind::Symlink(target) => target.len() as u64,
                    _ => 0,
                },
            },
            Slot::Ghost { size, .. } => Shape::Inode { size },
            Slot::Directory { node, names, bytes } => Shape::Directory {
                first: seen.insert(node),
                names,
                bytes,
            },
            Slot::GhostDirectory {
                inode,
                names,
                bytes,
            } => Shape::Directory {
                first: inode,
                names,
                bytes,
            },
        })
        .collect()
}

#[test]
fn the_slots_of_a_base_do_not_hang_on_the_layers_above() {
    let mut hidden = 0;
    for seed in 100..200 {
        let chain = random::chain(seed);
        let all = chain.merge().unwrap();
        let shapes_of_all = shapes(&all);
        for count in 1..chain.layers.len() {
            let base = shapes(&chain.merge_base(count).unwrap());
            assert_eq!(
                base,
                shapes_of_all[..base.len()],
                "seed {seed}, {count} layers"
            );
        }
        hidden += all
            .tree
            .slots()
            .iter()
            .filter(|slot| matches!(slot, Slot::GhostDirectory { .. }))
            .count();
    }
    assert!(
        hidden > 500,
        "the cases hide too little to prove anything: {hidden}"
    );
}
