//! Tests of the injection.

use std::os::unix::fs::symlink;

use super::*;
use crate::tree::{Device, Entry};

const OLD: Timestamp = Timestamp {
    seconds: 1_000,
    nanoseconds: 7,
};
const NEWEST: Timestamp = Timestamp {
    seconds: 5_000,
    nanoseconds: 999_999_999,
};

fn metadata(mtime: Timestamp) -> Metadata {
    Metadata {
        mtime,
        uid: 12,
        gid: 34,
        permissions: 0o700,
        xattrs: XattrSetId::EMPTY,
        flags: InodeFlags::empty(),
    }
}

/// A tree with the given paths: "dir/", "file", "link -> target", "fifo|".
fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::new(metadata(OLD));
    for path in paths {
        let (path, kind) = if let Some((path, target)) = path.split_once(" -> ") {
            (
                path,
                Kind::Symlink(tree.add_name(target.as_bytes()).unwrap()),
            )
        } else if let Some(path) = path.strip_suffix('|') {
            (path, Kind::Fifo)
        } else if let Some(path) = path.strip_suffix('/') {
            let (parent, name) = place(&tree, path);
            let made = tree.add_directory(metadata(OLD)).unwrap();
            tree.link(parent, name.as_bytes(), made).unwrap();
            continue;
        } else {
            let content = tree
                .add_content(Content::Bytes(Box::new(*b"old!")))
                .unwrap();
            (*path, Kind::File { size: 4, content })
        };
        let (parent, name) = place(&tree, path);
        let node = tree
            .add_node(Node {
                kind,
                metadata: metadata(OLD),
                links: 0,
            })
            .unwrap();
        tree.link(parent, name.as_bytes(), node).unwrap();
        tree.push_slot(Slot::Node(node)).unwrap();
    }
    tree
}

fn place<'a>(tree: &Tree, path: &'a str) -> (NodeId, &'a str) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    (find(tree, parent).expect("parents come first"), name)
}

/// Without following symlinks.
fn find(tree: &Tree, path: &str) -> Option<NodeId> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .try_fold(tree.root(), |here, name| tree.lookup(here, name.as_bytes()))
}

fn file(destination: &str) -> Injection {
    Injection {
        source: InjectionSource::Bytes(Box::new(*b"agent")),
        destination: destination.as_bytes().to_vec(),
        permissions: 0o755,
        uid: 1,
        gid: 2,
    }
}

/// Injects and tells whether the file came to `expected`.
#[track_caller]
fn lands(paths: &[&str], destination: &str, expected: &str) -> Tree {
    let mut tree = tree(paths);
    let node = tree.inject(&file(destination)).unwrap();
    assert_eq!(find(&tree, expected), Some(node), "not at {expected}");
    assert_eq!(tree.node(node).links, 1);
    let Kind::File { size, content } = tree.node(node).kind else {
        panic!("no file");
    };
    assert_eq!(size, 5);
    assert!(matches!(tree.content(content), Content::Bytes(bytes) if &**bytes == b"agent"));
    check_slots(&tree);
    tree
}

#[track_caller]
fn refused(paths: &[&str], destination: &str, word: &str) {
    let mut tree = tree(paths);
    match tree.inject(&file(destination)) {
        Err(Error::Injection { reason, .. }) => {
            assert!(reason.contains(word), "{reason:?} does not say {word:?}");
        }
        other => panic!("{destination}: {other:?}"),
    }
}

/// Every visible file has one slot, every hidden inode none.
fn check_slots(tree: &Tree) {
    for (id, node) in tree.nodes() {
        if tree.directory(id).is_none() {
            let slots = tree
                .slots()
                .iter()
                .filter(|slot| **slot == Slot::Node(id))
                .count();
            assert_eq!(slots, usize::from(node.links > 0), "{id:?}");
        }
    }
    for (at, slot) in tree.slots().iter().enumerate() {
        if let Slot::Directory { node, names, bytes } = slot {
            let dir = tree.directory(*node).unwrap();
            if dir.last_slot as usize == at {
                assert_eq!(*names as usize, dir.entries.len());
                let sum: usize = dir.entries.iter().map(|entry| entry.name.len()).sum();
                assert_eq!(*bytes as usize, sum);
            }
        }
    }
}

#[test]
fn into_a_directory() {
    lands(&["sbin/"], "/sbin/vm-agent", "sbin/vm-agent");
    lands(&[], "/init", "init");
    lands(&["a/", "a/b/"], "//a/.//b/x", "a/b/x");
}

#[test]
fn makes_parents() {
    let tree = lands(&[], "/opt/a/b/agent", "opt/a/b/agent");
    for made in ["opt", "opt/a", "opt/a/b"] {
        let node = tree.node(find(&tree, made).unwrap());
        let expected = Metadata {
            mtime: OLD,
            uid: 0,
            gid: 0,
            permissions: 0o755,
            xattrs: XattrSetId::EMPTY,
            flags: InodeFlags::empty(),
        };
        assert_eq!(node.metadata, expected);
        assert_eq!(node.links, 1);
    }
    // Each touched directory once, in the order of a walk, then the file.
    let slots: Vec<_> = tree
        .slots()
        .iter()
        .map(|slot| match slot {
            Slot::Directory { node, .. } => tree.display_path(*node),
            Slot::Node(node) => tree.display_path(*node),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(slots, ["/", "/opt", "/opt/a", "/opt/a/b", "/opt/a/b/agent"]);
}

#[test]
fn the_directory_that_was_there_gets_a_slot() {
    let mut tree = tree(&["usr/", "usr/sbin/", "sbin -> usr/sbin"]);
    let before = tree.slots().len();
    let node = tree.inject(&file("/sbin/a")).unwrap();
    let sbin = find(&tree, "usr/sbin").unwrap();
    let expected = [
        Slot::Directory {
            node: sbin,
            names: 1,
            bytes: 1,
        },
        Slot::Node(node),
    ];
    assert_eq!(tree.slots()[before..], expected);
    assert_eq!(tree.directory(sbin).unwrap().last_slot as usize, before);
}

#[test]
fn symlinks_are_followed_inside() {
    lands(
        &["usr/", "usr/sbin/", "sbin -> usr/sbin"],
        "/sbin/a",
        "usr/sbin/a",
    );
    lands(
        &["usr/", "usr/sbin/", "sbin -> /usr/sbin"],
        "/sbin/a",
        "usr/sbin/a",
    );
    lands(
        &["usr/", "usr/sbin/", "sbin -> ../../../usr//./sbin/"],
        "/sbin/a",
        "usr/sbin/a",
    );
    lands(&["r/", "r/s/", "r/up -> ../r/s/.."], "/r/up/a", "r/a");
    // A chain of links, the last one absolute.
    lands(
        &["one -> two", "two -> x/three", "x/", "x/three -> /y", "y/"],
        "/one/a",
        "y/a",
    );
}

#[test]
fn dangling_links_get_their_target() {
    lands(&["sbin -> usr/sbin"], "/sbin/vm-agent", "usr/sbin/vm-agent");
    lands(
        &["sbin -> /usr/sbin", "usr -> /system"],
        "/sbin/vm-agent",
        "system/sbin/vm-agent",
    );
    lands(&["d/", "d/l -> ../gone/../back"], "/d/l/a", "back/a");
}

#[test]
fn dot_dot_stops_at_the_root() {
    lands(&["d/"], "/../../d/../../a", "a");
    lands(&["l -> ../../../../etc"], "/l/passwd", "etc/passwd");
}

#[test]
fn a_link_at_the_destination_is_replaced() {
    let tree = lands(
        &["sbin/", "sbin/init -> /lib/systemd"],
        "/sbin/init",
        "sbin/init",
    );
    assert_eq!(find(&tree, "lib"), None);
    assert!(tree.slots().contains(&Slot::Ghost {
        inode: true,
        size: 12
    }));
    lands(&["sbin/", "sbin/x -> x"], "/sbin/x", "sbin/x");
}

#[test]
fn a_file_at_the_destination_is_replaced() {
    let tree = lands(&["sbin/", "sbin/x"], "/sbin/x", "sbin/x");
    assert!(tree.slots().contains(&Slot::Ghost {
        inode: true,
        size: 4
    }));
    let tree = lands(&["p|"], "/p", "p");
    assert!(tree.slots().contains(&Slot::Ghost {
        inode: true,
        size: 0
    }));
}

#[test]
fn hard_linked_siblings_stay() {
    let mut tree = tree(&["a", "d/"]);
    let old = find(&tree, "a").unwrap();
    let d = find(&tree, "d").unwrap();
    tree.link(d, b"b", old).unwrap();
    let new = tree.inject(&file("/a")).unwrap();
    assert_eq!(find(&tree, "a"), Some(new));
    assert_eq!(find(&tree, "d/b"), Some(old));
    assert_eq!(tree.node(old).links, 1);
    check_slots(&tree);
}

#[test]
fn the_second_injection_wins() {
    let mut tree = tree(&["sbin/"]);
    let first = tree.inject(&file("/sbin/x")).unwrap();
    let second = tree.inject(&file("/sbin/x")).unwrap();
    assert_eq!(tree.node(first).links, 0);
    assert_eq!(find(&tree, "sbin/x"), Some(second));
    check_slots(&tree);
}

#[test]
fn metadata_is_as_told_and_the_time_is_the_newest() {
    let mut tree = tree(&["a", "gone", "sbin/"]);
    let a = find(&tree, "a").unwrap();
    tree.node_mut(a).metadata.mtime = NEWEST;
    // What is not visible does not count.
    let hidden = tree
        .add_node(Node {
            kind: Kind::CharDevice(Device { major: 1, minor: 3 }),
            metadata: metadata(Timestamp {
                seconds: 9_000,
                nanoseconds: 0,
            }),
            links: 0,
        })
        .unwrap();
    let mut wish = file("/sbin/deep/agent");
    wish.permissions = 0o104_755;
    let node = tree.inject(&wish).unwrap();
    let expected = Metadata {
        mtime: NEWEST,
        uid: 1,
        gid: 2,
        permissions: 0o4755,
        xattrs: XattrSetId::EMPTY,
        flags: InodeFlags::empty(),
    };
    assert_eq!(tree.node(node).metadata, expected);
    assert_eq!(
        tree.node(find(&tree, "sbin/deep").unwrap()).metadata.mtime,
        NEWEST
    );
    // What was there keeps its own.
    assert_eq!(
        tree.node(find(&tree, "sbin").unwrap()).metadata,
        metadata(OLD)
    );
    assert_eq!(tree.node(hidden).links, 0);
}

#[test]
fn not_through_what_is_no_directory() {
    refused(&["sbin"], "/sbin/x", "/sbin is no directory");
    refused(&["p|"], "/p/x/y", "/p is no directory");
    refused(&["f", "l -> f"], "/l/x", "/f is no directory");
    refused(&["d/", "d/x/"], "/d/x", "directory of that name");
}

#[test]
fn loops_end() {
    refused(&["a -> b", "b -> a"], "/a/x", "40 symlinks");
    refused(&["a -> a/a/a/a"], "/a/x", "40 symlinks");
    // Forty are followed, as the kernel does, and no more.
    let mut chain: Vec<String> = (0..40).map(|n| format!("l{n} -> l{}", n + 1)).collect();
    chain.push("l40/".into());
    let paths: Vec<&str> = chain.iter().map(String::as_str).collect();
    lands(&paths, "/l0/x", "l40/x");
    chain.insert(0, "m -> l0".into());
    let paths: Vec<&str> = chain.iter().map(String::as_str).collect();
    refused(&paths, "/m/x", "40 symlinks");
}

#[test]
fn destinations_that_are_none() {
    refused(&[], "sbin/x", "absolute");
    refused(&[], "", "absolute");
    refused(&[], "/", "names a directory");
    refused(&[], "/sbin/", "names a directory");
    refused(&[], "/sbin/.", "names a directory");
    refused(&[], "/sbin/..", "names a directory");
    refused(&[], "/a\0b", "NUL");
    refused(&[], &format!("/{}", "n".repeat(256)), "255");
    refused(&[], &format!("/{}/x", "n".repeat(256)), "255");
    refused(&[&format!("l -> {}", "n".repeat(300))], "/l/x", "255");
    lands(
        &[],
        &format!("/{0}/{0}", "n".repeat(255)),
        &format!("{0}/{0}", "n".repeat(255)),
    );
}

#[test]
fn names_are_bytes() {
    let mut tree = tree(&[]);
    let mut wish = file("/");
    wish.destination = b"/\xff\xfe/\x80".to_vec();
    let node = tree.inject(&wish).unwrap();
    let dir = tree.lookup(tree.root(), b"\xff\xfe").unwrap();
    assert_eq!(tree.lookup(dir, b"\x80"), Some(node));
}

#[test]
fn entries_stay_sorted() {
    let mut tree = tree(&["a", "c", "e"]);
    for name in ["/b", "/f", "/0", "/d"] {
        tree.inject(&file(name)).unwrap();
    }
    let entries: &[Entry] = &tree.directory(tree.root()).unwrap().entries;
    let names: Vec<&[u8]> = entries.iter().map(|entry| tree.name(entry.name)).collect();
    assert_eq!(names, [b"0", b"a", b"b", b"c", b"d", b"e", b"f"]);
}

#[test]
fn host_files() {
    let base = std::env::temp_dir().join(format!("layermelt-inject-{}", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    let agent = base.join("agent");
    std::fs::write(&agent, b"0123456789").unwrap();
    symlink("agent", base.join("link")).unwrap();
    symlink("nowhere", base.join("dangling")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, base.join("fifo"), Mode::RUSR).unwrap();

    let mut tree = tree(&[]);
    let mut inject = |name: &str| {
        let mut wish = file("/agent");
        wish.source = InjectionSource::Host(base.join(name));
        tree.inject(&wish)
            .map(|node| tree.node(node).kind)
            .map(|kind| match kind {
                Kind::File { size, content } => (size, tree.content(content).clone()),
                other => panic!("{other:?}"),
            })
    };
    let stat = rustix::fs::stat(&agent).unwrap();
    let (size, content) = inject("link").unwrap();
    assert_eq!(size, 10);
    let Content::Host { path, identity } = content else {
        panic!("{content:?}")
    };
    assert_eq!(path, base.join("link"));
    assert_eq!(
        (identity.inode, identity.mtime.seconds),
        (stat.st_ino, stat.st_mtime)
    );

    for (name, word) in [("", "a directory"), ("fifo", "a FIFO")] {
        let error = inject(name).unwrap_err().to_string();
        assert!(
            error.contains(word) && error.contains("layermelt-inject"),
            "{error}"
        );
    }
    for name in ["none", "dangling", "agent/x"] {
        assert!(matches!(inject(name), Err(Error::Io { path, .. }) if path == base.join(name)));
    }
    std::fs::remove_dir_all(&base).unwrap();
}
