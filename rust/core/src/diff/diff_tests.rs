use std::collections::BTreeMap;

use super::*;
use crate::tree::{Entry, Metadata, Timestamp, XattrSetId};

/// Trees of directories and symlinks need no bytes.
struct Nothing;

impl Contents for Nothing {
    fn reader<'a>(&'a self, _tree: &'a Tree) -> Box<dyn Reader + 'a> {
        Box::new(Self)
    }
}

impl Reader for Nothing {
    fn open(&mut self, _content: crate::tree::ContentId, _size: u64) -> Result<()> {
        unreachable!("there is no file")
    }

    fn identity(&self) -> Option<(u64, u64)> {
        None
    }

    fn next_data(&mut self, at: u64) -> Result<u64> {
        Ok(at)
    }

    fn read(&mut self, _at: u64, _out: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

const METADATA: Metadata = Metadata {
    mtime: Timestamp {
        seconds: 0,
        nanoseconds: 0,
    },
    uid: 0,
    gid: 0,
    permissions: 0o755,
    xattrs: XattrSetId::EMPTY,
    flags: crate::tree::InodeFlags::empty(),
};

/// Directories at these paths, and all above them.
fn directories(paths: &[String]) -> Tree {
    let mut tree = Tree::new(METADATA);
    for path in paths {
        let mut at = tree.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = match tree.lookup(at, name.as_bytes()) {
                Some(known) => known,
                None => {
                    let node = tree.add_directory(METADATA).unwrap();
                    tree.link(at, name.as_bytes(), node).unwrap();
                    node
                }
            };
        }
    }
    tree
}

fn told(a: &Tree, b: &Tree, options: &DiffOptions) -> (Vec<(String, String)>, Counts) {
    let side = |tree| Side {
        tree,
        files: &Nothing,
    };
    let mut told = Vec::new();
    let counts = diff(
        side(a),
        side(b),
        options,
        2,
        &Control::default(),
        |difference| {
            let path = String::from_utf8(difference.path.to_vec()).unwrap();
            told.push((path, format!("{:?}", difference.found)));
            Ok(())
        },
    );
    (told, counts.unwrap())
}

/// A small generator is enough for names.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn random_trees_differ_in_the_paths_of_one_of_them_in_order() {
    let mut seed = 7;
    for _ in 0..200 {
        let mut make = || -> Vec<String> {
            (0..random(&mut seed) % 40)
                .map(|_| {
                    let depth = 1 + random(&mut seed) % 4;
                    let names = (0..depth).map(|_| {
                        let length = 1 + random(&mut seed) % 3;
                        let name = (0..length)
                            .map(|_| ['a', '-', '0', '.'][(random(&mut seed) % 4) as usize]);
                        format!("{}x", name.collect::<String>())
                    });
                    names.map(|name| format!("/{name}")).collect()
                })
                .collect()
        };
        let (a, b) = (make(), make());
        let all = |paths: &[String]| -> std::collections::BTreeSet<String> {
            paths
                .iter()
                .flat_map(|path| {
                    path.match_indices('/')
                        .map(|(at, _)| path[..at].to_owned())
                        .chain([path.clone()])
                        .collect::<Vec<_>>()
                })
                .filter(|path| !path.is_empty())
                .collect()
        };
        let options = DiffOptions {
            all: true,
            ..DiffOptions::default()
        };
        let (told, counts) = told(&directories(&a), &directories(&b), &options);
        let (a, b) = (all(&a), all(&b));
        let paths: Vec<&str> = told.iter().map(|(path, _)| path.as_str()).collect();
        let expected: Vec<&str> = a.symmetric_difference(&b).map(String::as_str).collect();
        // A BTreeSet of strings is in the order of their bytes.
        assert_eq!(paths, expected);
        assert_eq!(counts.only[0] as usize, a.difference(&b).count());
        assert_eq!(counts.only[1] as usize, b.difference(&a).count());
    }
}

/// `groups` gives each path the number of its inode.
fn linked(groups: &BTreeMap<&str, u32>) -> Tree {
    let mut tree = directories(&[]);
    let target = tree.add_name(b"t").unwrap();
    let mut nodes = BTreeMap::new();
    let mut entries = Vec::new();
    for (path, group) in groups {
        let node = *nodes.entry(group).or_insert_with(|| {
            tree.add_node(crate::tree::Node {
                kind: Kind::Symlink(target),
                metadata: METADATA,
                links: 0,
            })
            .unwrap()
        });
        let name = tree.add_name(path.as_bytes()).unwrap();
        entries.push(Entry { name, node });
    }
    tree.set_entries(tree.root(), entries);
    tree
}

#[test]
fn link_groups_are_sets_of_names() {
    let tree = |groups: &[(&'static str, u32)]| linked(&groups.iter().copied().collect());
    let paths = |a: &Tree, b: &Tree| -> Vec<String> {
        let (told, _) = told(a, b, &DiffOptions::default());
        told.into_iter().map(|(path, _)| path).collect()
    };
    let a = tree(&[("a", 1), ("b", 1), ("c", 2), ("d", 2), ("e", 3)]);
    assert!(paths(
        &a,
        &tree(&[("a", 9), ("b", 9), ("c", 8), ("d", 8), ("e", 7)])
    )
    .is_empty());
    let crossed = tree(&[("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 3)]);
    assert_eq!(paths(&a, &crossed), ["/a", "/b", "/c", "/d"]);
    let joined = tree(&[("a", 1), ("b", 1), ("c", 2), ("d", 2), ("e", 2)]);
    assert_eq!(paths(&a, &joined), ["/c", "/d", "/e"]);
    assert_eq!(paths(&joined, &a), ["/c", "/d", "/e"]);
    let another = tree(&[("a", 1), ("b", 1), ("c", 2), ("d", 2), ("e", 3), ("f", 1)]);
    assert_eq!(paths(&a, &another), ["/a", "/b", "/f"]);
}

#[test]
fn many_names_of_one_inode_cost_no_square() {
    let names: Vec<String> = (0..60_000).map(|number| format!("{number:05}")).collect();
    let one = linked(&names.iter().map(|name| (name.as_str(), 0)).collect());
    let each = linked(&names.iter().map(String::as_str).zip(0..).collect());
    let since = std::time::Instant::now();
    let (told, counts) = told(&one, &each, &DiffOptions::default());
    assert_eq!(counts.changed, 60_000);
    assert!(told[0].1.contains("count: 60000"), "{}", told[0].1);
    assert!(since.elapsed().as_secs() < 20, "{:?}", since.elapsed());
}
