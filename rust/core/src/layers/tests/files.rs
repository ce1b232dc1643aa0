//! Opening what the tree tells of, and the holes.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use rustix::fs::FileType;

use super::support::{set_mtime, skip, Chain, Merged};
use crate::blockio::{ContentStore, Opened};
use crate::diff::Contents;
use crate::error::{Error, Result};
use crate::tree::{Content, Extent, Kind};

/// Opens the file of that path once more.
fn open(merged: &Merged, path: &str) -> Result<()> {
    let Kind::File { size, content } = merged.tree.node(merged.at(path)).kind else {
        panic!("no file");
    };
    let mut opener = merged.files.opener(&merged.tree);
    match opener.open(content)? {
        Opened::File(file) => opener.still_same(content, size, &file),
        Opened::Bytes(_) => panic!("no file"),
    }
}

fn changed(merged: &Merged, path: &str, reason: &str) {
    match open(merged, path) {
        Err(Error::LayerChanged {
            path: at,
            reason: text,
        }) => {
            assert!(at.ends_with(path), "{}", at.display());
            assert!(text.contains(reason), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_another_one_now_is_an_error() {
    let chain = Chain::new(1);
    let names = [
        "shrunk", "grown", "replaced", "touched", "gone", "link", "fifo", "dir",
    ];
    for name in names {
        chain.file(0, &format!("d/{name}"), "content");
        set_mtime(&chain.path(0, &format!("d/{name}")), 1000, 5);
    }
    chain.file(0, "elsewhere", "content");
    let merged = chain.merge().unwrap();
    let path = |name: &str| chain.path(0, &format!("d/{name}"));
    for name in names {
        open(&merged, &format!("d/{name}")).unwrap();
    }
    fs::write(path("shrunk"), "con").unwrap();
    fs::write(path("grown"), "content and more").unwrap();
    fs::write(path("new"), "content").unwrap();
    fs::rename(path("new"), path("replaced")).unwrap();
    set_mtime(&path("replaced"), 1000, 5);
    set_mtime(&path("touched"), 1000, 6);
    for name in ["gone", "link", "fifo", "dir"] {
        fs::remove_file(path(name)).unwrap();
    }
    std::os::unix::fs::symlink("../elsewhere", path("link")).unwrap();
    chain
        .node(0, "d/fifo", FileType::Fifo, 0o600, 0, 0)
        .dir(0, "d/dir");
    changed(&merged, "d/shrunk", "had 7 bytes and has 3");
    changed(&merged, "d/grown", "has 16");
    changed(&merged, "d/replaced", "another file");
    changed(&merged, "d/touched", "mtime");
    changed(&merged, "d/gone", "no more");
    changed(&merged, "d/link", "no more");
    changed(&merged, "d/fifo", "no regular file");
    changed(&merged, "d/dir", "no regular file");
}

#[test]
fn no_symlink_leads_out_of_a_layer() {
    // The same path and the same inode, but by way of a symlink: at the start
    // of the way, in its middle, at its end.
    for (replaced, target) in [("a", "../x"), ("a/b", "../../x"), ("a/b/c", "../../../x")] {
        let chain = Chain::new(1);
        chain.file(0, "a/b/c/f", "inside");
        let merged = chain.merge().unwrap();
        fs::rename(chain.path(0, replaced), chain.scratch.0.join("x")).unwrap();
        std::os::unix::fs::symlink(target, chain.path(0, replaced)).unwrap();
        assert!(chain.path(0, "a/b/c/f").exists());
        changed(&merged, "a/b/c/f", "no more");
    }
}

#[test]
fn the_path_of_a_content_is_its_hosts() {
    let chain = Chain::new(2);
    chain.file(0, "a/b/f", "").dir(1, "a");
    let merged = chain.merge().unwrap();
    let Kind::File { content, .. } = merged.tree.node(merged.at("a/b/f")).kind else {
        panic!("no file");
    };
    let opener = merged.files.opener(&merged.tree);
    assert_eq!(opener.path(content), chain.path(0, "a/b/f"));
}

fn sparse(path: &Path, parts: &[(u64, usize)], size: u64) {
    let mut file = fs::File::create(path).unwrap();
    for &(start, len) in parts {
        file.seek(SeekFrom::Start(start)).unwrap();
        file.write_all(&vec![b'd'; len]).unwrap();
    }
    file.set_len(size).unwrap();
}

fn holes(merged: &Merged, path: &str) -> Option<Vec<(u64, u64)>> {
    let Kind::File { content, .. } = merged.tree.node(merged.at(path)).kind else {
        panic!("no file");
    };
    match merged.tree.content(content) {
        Content::Layer { data, .. } => data.as_ref().map(|map| {
            map.iter()
                .map(|&Extent { start, len }| (start, len))
                .collect()
        }),
        _ => panic!("not of a layer"),
    }
}

#[test]
fn holes_are_found_in_visible_files() {
    const MIB: u64 = 1 << 20;
    let chain = Chain::new(2);
    sparse(&chain.path(0, "hidden"), &[], MIB);
    sparse(&chain.path(1, "hidden"), &[(0, 5000)], 5000);
    sparse(&chain.path(1, "all"), &[], 3 * MIB + 1);
    sparse(
        &chain.path(1, "parts"),
        &[(MIB, 65_536), (2 * MIB, 65_536)],
        4 * MIB,
    );
    sparse(&chain.path(1, "tail"), &[(MIB, 4097)], MIB + 4097);
    chain
        .file(1, "empty", "")
        .file(1, "dense", &"x".repeat(10_000));
    for at in 0..100 {
        sparse(&chain.path(1, &format!("many{at}")), &[], MIB);
    }
    let all = fs::File::open(chain.path(1, "all")).unwrap();
    if rustix::fs::seek(&all, rustix::fs::SeekFrom::Hole(0)) != Ok(0) {
        return skip(
            "holes_are_found_in_visible_files",
            "a file system with holes under TMPDIR",
        );
    }
    let merged = chain.merge().unwrap();
    assert_eq!(holes(&merged, "all"), Some(vec![]));
    assert_eq!(
        holes(&merged, "parts"),
        Some(vec![(MIB, 65_536), (2 * MIB, 65_536)])
    );
    assert_eq!(holes(&merged, "tail"), Some(vec![(MIB, 4097)]));
    // Those with holes are placed apart, so that hidden ones leave no gap.
    assert_eq!(merged.slots()[1], "ghost 0");
    for dense in ["hidden", "empty", "dense"] {
        assert_eq!(holes(&merged, dense), None, "{dense}");
    }
    for at in 0..100 {
        assert_eq!(holes(&merged, &format!("many{at}")), Some(vec![]));
    }
}

#[test]
fn a_file_that_is_written_to_while_it_is_compared_is_an_error() {
    let chain = Chain::new(1);
    chain.file(0, "f", "content");
    set_mtime(&chain.path(0, "f"), 1000, 5);
    let merged = chain.merge().unwrap();
    let Kind::File { size, content } = merged.tree.node(merged.at("f")).kind else {
        panic!("no file");
    };
    let mut reader = merged.files.reader(&merged.tree);
    let mut bytes = [0; 7];
    for other in [None, Some("CONTENT")] {
        reader.open(content, size).unwrap();
        reader.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"content");
        if let Some(other) = other {
            fs::write(chain.path(0, "f"), other).unwrap();
        }
        let closed = reader.close();
        match other {
            None => closed.unwrap(),
            Some(_) => assert!(
                matches!(closed, Err(Error::LayerChanged { .. })),
                "{closed:?}"
            ),
        }
    }
}
