//! Images read by two crates of others, against the tree they were made from.
#![allow(missing_docs)]

mod common;
#[path = "../examples/read_image.rs"]
mod read_image;

use common::{build, Maker};
use layermelt_core::ext4::plan::{ImageOptions, Size};
use layermelt_core::tree::{Content, Device, Kind, NodeId, Timestamp, Tree};
use read_image::{line, read_with_ext4_view, read_with_mkext4, verify};
use sha2::{Digest, Sha256};

/// What the readers should say of `tree`.
fn expected(tree: &Tree) -> read_image::Tree {
    let mut found = read_image::Tree::new();
    let mut pending = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, id)) = pending.pop() {
        let node = tree.node(id);
        let (kind, content) = match &node.kind {
            Kind::Directory(_) => (0o040_000, Vec::new()),
            Kind::File { content, .. } => match tree.content(*content) {
                Content::Bytes(bytes) => (0o100_000, Sha256::digest(bytes).to_vec()),
                other => panic!("not in memory: {other:?}"),
            },
            Kind::Symlink(target) => (0o120_000, tree.name(*target).to_vec()),
            Kind::CharDevice(_) => (0o020_000, Vec::new()),
            Kind::BlockDevice(_) => (0o060_000, Vec::new()),
            Kind::Fifo => (0o010_000, Vec::new()),
            Kind::Socket => (0o140_000, Vec::new()),
        };
        if let Some(directory) = tree.directory(id) {
            for entry in &directory.entries {
                let mut child: Vec<u8> = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(tree.name(entry.name));
                pending.push((child, entry.node));
            }
        }
        let metadata = &node.metadata;
        let entry = read_image::Entry {
            mode: kind | metadata.permissions,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: (metadata.mtime.seconds, metadata.mtime.nanoseconds),
            content,
        };
        found.insert(path, entry);
    }
    found
}

type Reader = fn(&std::path::Path) -> Result<read_image::Tree, Box<dyn std::error::Error>>;

const EXT4_VIEW: (&str, Reader) = ("ext4-view", read_with_ext4_view);
const MKEXT4: (&str, Reader) = ("mkext4", read_with_mkext4);

/// Both readers find `tree`, and no checksum is wrong.
fn agree(tree: &Tree, options: &ImageOptions) {
    read_by(&[EXT4_VIEW, MKEXT4], tree, options);
}

fn read_by(readers: &[(&str, Reader)], tree: &Tree, options: &ImageOptions) {
    let image = build(tree, options, 2).unwrap();
    assert_eq!(verify(&image.0).unwrap(), Vec::<String>::new());
    let mut wanted = expected(tree);
    for (name, read) in readers {
        let found = read(&image.0).unwrap();
        // Made by the format, not by the tree.
        if let Some(made) = found.get(&b"lost+found"[..]) {
            wanted
                .entry(b"lost+found".to_vec())
                .or_insert_with(|| made.clone());
        }
        let lines = |tree: &read_image::Tree| -> Vec<String> {
            tree.iter().map(|(path, entry)| line(path, entry)).collect()
        };
        assert_eq!(lines(&found), lines(&wanted), "{name}");
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

#[test]
fn every_type_and_every_size() {
    let mut make = Maker::default();
    let mut root: Vec<(Vec<u8>, NodeId)> = Vec::new();
    for length in [0, 1, 4095, 4096, 4097, 1 << 20, 9_000_001] {
        root.push((
            format!("file-{length}").into_bytes(),
            make.file(noise(length)),
        ));
    }
    for length in [1, 59, 60, 4095] {
        let target: Vec<u8> = b"x/".iter().copied().cycle().take(length).collect();
        root.push((format!("link-{length}").into_bytes(), make.symlink(&target)));
    }
    let device = Device {
        major: 259,
        minor: 70_000,
    };
    root.push((b"char".to_vec(), make.node(Kind::CharDevice(device))));
    root.push((b"block".to_vec(), make.node(Kind::BlockDevice(device))));
    root.push((b"fifo".to_vec(), make.node(Kind::Fifo)));
    root.push((b"socket".to_vec(), make.node(Kind::Socket)));
    let linked = make.file(b"linked".to_vec());
    root.push((b"one".to_vec(), linked));
    root.push((b"other".to_vec(), linked));
    let entries: Vec<(&[u8], NodeId)> = root.iter().map(|(n, id)| (&n[..], *id)).collect();
    agree(&make.finish(&sorted(entries)), &ImageOptions::default());
}

#[test]
fn names_owners_and_attributes() {
    let mut make = Maker::default();
    let longest = [b'n'; 255];
    let mut root: Vec<(&[u8], NodeId)> = vec![
        (b"caf\xe9", make.file(b"latin 1".to_vec())),
        (b"\xff\n\t", make.file(Vec::new())),
        (&longest, make.file(Vec::new())),
    ];
    let owned = make.file(Vec::new());
    let metadata = &mut make.tree.node_mut(owned).metadata;
    (metadata.uid, metadata.gid, metadata.permissions) = (4_294_967_294, 65_536, 0o7777);
    root.push((b"owned", owned));
    // In the inode, and too much for it.
    for (name, length) in [(b"small".as_slice(), 20), (b"large", 3000)] {
        let file = make.file(name.to_vec());
        make.xattrs(file, &[(b"user.a", &noise(length)), (b"trusted.b", b"b")]);
        root.push((name, file));
    }
    agree(&make.finish(&sorted(root)), &ImageOptions::default());
}

/// Only by mkext4: ext4-view 1.0 refuses every time whose low 32 bits are
/// negative, that is before 1970 and from 2038 to 2106.
#[test]
fn times_of_every_epoch() {
    let mut make = Maker::default();
    let times = [
        (b"1901".as_slice(), -2_147_483_647, 0),
        (b"1969", -1, 999_999_999),
        (b"1970", 0, 1),
        (b"2038", 2_147_483_648, 5),
        (b"2106", 4_294_967_296, 999_999_999),
        (b"2446", 15_032_385_534, 999_999_999),
    ];
    let mut root = Vec::new();
    for (name, seconds, nanoseconds) in times {
        let file = make.file(name.to_vec());
        make.tree.node_mut(file).metadata.mtime = Timestamp {
            seconds,
            nanoseconds,
        };
        root.push((name, file));
    }
    read_by(&[MKEXT4], &make.finish(&root), &ImageOptions::default());
}

#[test]
fn many_groups_and_many_names() {
    let mut make = Maker::default();
    let mut directories = Vec::new();
    for number in 0..20_u32 {
        let names: Vec<Vec<u8>> = (0..400_u32)
            .map(|file| format!("{number}-{file:05}-{}", "x".repeat(40)).into_bytes())
            .collect();
        let files: Vec<(&[u8], NodeId)> = names
            .iter()
            .map(|name| (&name[..], make.file(name.clone())))
            .collect();
        let name = format!("directory-{number:02}").into_bytes();
        directories.push((name, make.directory(&files)));
    }
    let entries = directories.iter().map(|(n, id)| (&n[..], *id)).collect();
    // More than one group of 128 MiB, nearly all of it a hole.
    let options = ImageOptions {
        size: Size::Bytes(3 << 30),
        ..ImageOptions::default()
    };
    agree(&make.finish(&sorted(entries)), &options);
}

#[test]
fn a_smallest_empty_image() {
    let options = ImageOptions {
        size: Size::Min,
        ..ImageOptions::default()
    };
    agree(&Maker::default().finish(&[]), &options);
}

#[test]
fn a_wrong_byte_is_noticed() {
    use std::os::unix::fs::FileExt;

    let mut make = Maker::default();
    let file = make.file(noise(5000));
    let tree = make.finish(&[(b"file", file)]);
    let image = build(&tree, &ImageOptions::default(), 1).unwrap();
    let handle = std::fs::File::options().write(true).open(&image.0).unwrap();
    // Field s_mtime of the superblock: covered by its checksum, else harmless.
    handle.write_all_at(&[0x55; 4], 1024 + 0x2c).unwrap();
    assert!(verify(&image.0).is_err() || !verify(&image.0).unwrap().is_empty());
    assert!(read_with_ext4_view(&image.0).is_err());
}

fn sorted(mut entries: Vec<(&[u8], NodeId)>) -> Vec<(&[u8], NodeId)> {
    entries.sort_by_key(|&(name, _)| name);
    entries
}
