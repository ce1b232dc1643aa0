//! Images of trees made in memory, judged by e2fsck and debugfs.
#![allow(missing_docs)]

mod common;

use common::trees::{many, varied};
use common::{build, debugfs, judge, told, Maker};
use layermelt_core::ext4::plan::{ImageOptions, JournalSize, Plan, Profile, Size, LINK_MAX};
use layermelt_core::tree::{Device, Kind, NodeId, Slot, Tree};
use layermelt_core::Error;

fn min() -> ImageOptions {
    ImageOptions {
        size: Size::Min,
        ..ImageOptions::default()
    }
}

fn bytes(bytes: u64) -> ImageOptions {
    ImageOptions {
        size: Size::Bytes(bytes),
        ..ImageOptions::default()
    }
}

#[test]
fn an_empty_tree_is_a_file_system() {
    let tree = Maker::default().finish(&[]);
    for options in [
        ImageOptions::default(),
        min(),
        bytes(1 << 20),
        bytes(5 << 30),
    ] {
        judge(&build(&tree, &options, 1).unwrap().0);
    }
}

#[test]
fn everything_is_there() {
    let tree = varied();
    for options in [
        ImageOptions::default(),
        min(),
        bytes(64 << 20),
        bytes(200 << 20),
    ] {
        let image = build(&tree, &options, 2).unwrap();
        judge(&image.0);
        assert_eq!(debugfs(&image.0, "cat /small"), "hello");
        assert!(debugfs(&image.0, "stat /long").contains("Size: 60"));
        assert!(debugfs(&image.0, "stat /disk").contains("259:70000"));
        assert!(debugfs(&image.0, "stat /small").contains("Links: 2"));
        assert!(debugfs(&image.0, "ea_get /block user.large").contains("(3000)"));
        assert!(debugfs(&image.0, "ea_list /short").contains("trusted.on_a_link (200)"));
        assert!(debugfs(&image.0, "ls /").contains("lost+found"));
    }
}

#[test]
fn the_regions_are_the_file() {
    let tree = varied();
    for options in [min(), bytes(64 << 20), bytes((150 << 20) + 4096)] {
        let image = build(&tree, &options, 3).unwrap();
        let written = std::fs::read(&image.0).unwrap();
        assert!(
            written == told(&tree, &options),
            "the file is what the regions tell"
        );
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let tree = varied();
    let one = {
        let image = build(&tree, &min(), 1).unwrap();
        std::fs::read(&image.0).unwrap()
    };
    for threads in [2, 8] {
        let image = build(&tree, &min(), threads).unwrap();
        assert!(std::fs::read(&image.0).unwrap() == one);
    }
}

#[test]
fn many_groups_of_small_files() {
    let tree = many(20_000, 300);
    for options in [ImageOptions::default(), min(), bytes(3 << 30)] {
        let image = build(&tree, &options, 2).unwrap();
        judge(&image.0);
        assert_eq!(
            debugfs(&image.0, "stat /file-0019999")
                .matches("Size: 300")
                .count(),
            1
        );
    }
}

#[test]
fn inodes_suffice_when_files_are_empty() {
    let tree = many(150_000, 0);
    for options in [
        ImageOptions {
            free_space: 0,
            ..ImageOptions::default()
        },
        min(),
    ] {
        let plan = Plan::new(&tree, &options).unwrap();
        assert!(
            u64::from(plan.inode_count()) >= 165_000,
            "{}",
            plan.inode_count()
        );
        judge(&build(&tree, &options, 2).unwrap().0);
    }
}

#[test]
fn the_least_size_is_enough_and_one_block_less_is_not() {
    for tree in [
        Maker::default().finish(&[]),
        varied(),
        many(3_000, 5_000),
        many(40_000, 4_097),
    ] {
        let least = Plan::new(&tree, &min()).unwrap().image_bytes();
        let at_least = bytes(least);
        judge(&build(&tree, &at_least, 2).unwrap().0);
        match Plan::new(&tree, &bytes(least - 4096)) {
            Err(Error::TooSmall { given, needed }) => {
                assert_eq!((given, needed), (least - 4096, least));
            }
            other => panic!("{:?}", other.map(|plan| plan.image_bytes())),
        }
    }
}

#[test]
fn free_space_is_free() {
    let tree = varied();
    for free_space in [0, 1, 10 << 20, 3 << 30] {
        let options = ImageOptions {
            free_space,
            ..ImageOptions::default()
        };
        let plan = Plan::new(&tree, &options).unwrap();
        assert!(plan.free_blocks() * 4096 >= free_space);
        judge(&build(&tree, &options, 2).unwrap().0);
    }
}

#[test]
fn many_subdirectories_and_deep_ones() {
    let mut make = Maker::default();
    let names: Vec<_> = (0..66_000).map(|n| format!("d{n}").into_bytes()).collect();
    let nodes: Vec<_> = (0..66_000).map(|_| make.directory(&[])).collect();
    let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(nodes).collect();
    let wide = make.directory(&entries);
    // 65,000 links, as many as the kernel counts.
    let nodes: Vec<_> = (0..64_998).map(|_| make.directory(&[])).collect();
    let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(nodes).collect();
    let counted = make.directory(&entries);
    let mut deep = make.directory(&[]);
    for _ in 0..2_000 {
        deep = make.directory(&[(b"d", deep)]);
    }
    let tree = make.finish(&[(b"wide", wide), (b"counted", counted), (b"deep", deep)]);
    let image = build(&tree, &ImageOptions::default(), 2).unwrap();
    judge(&image.0);
    assert!(debugfs(&image.0, "stat /wide").contains("Links: 1 "));
    assert!(debugfs(&image.0, "stat /counted").contains("Links: 65000 "));
}

#[test]
fn large_directories_are_hashed() {
    let mut make = Maker::default();
    // 2,500 leaves: more than a root points at.
    let names: Vec<_> = (0..150_000)
        .map(|n| format!("{n:060}").into_bytes())
        .collect();
    let node = make.node(Kind::Fifo);
    let entries: Vec<_> = names[..60_000]
        .iter()
        .map(|name| (name.as_slice(), node))
        .collect();
    let small = make.directory(&entries);
    let node = make.node(Kind::Socket);
    let entries: Vec<_> = names[60_000..120_000]
        .iter()
        .map(|n| (n.as_slice(), node))
        .collect();
    let other = make.directory(&entries);
    let mut entries: Vec<_> = names[..1_000]
        .iter()
        .map(|n| (n.as_slice(), node))
        .collect();
    entries.push((b"small", small));
    entries.push((b"other", other));
    let image = build(&make.finish(&entries), &ImageOptions::default(), 2).unwrap();
    judge(&image.0);
    // debugfs and e2fsck read the index; "lost+found" is one of its names.
    let dump = debugfs(&image.0, "htree_dump /");
    assert!(dump.contains("Hash Version: 1"), "{dump}");
    assert!(dump.contains("lost+found"), "{dump}");
    let dump = debugfs(&image.0, "htree_dump /small");
    assert!(dump.contains("Indirect levels: 1"), "{}", &dump[..2000]);
}

#[test]
fn a_file_in_the_place_of_lost_and_found_wins() {
    let mut make = Maker::default();
    let file = make.file(b"mine".to_vec());
    let tree = make.finish(&[(b"lost+found", file)]);
    let image = build(&tree, &min(), 1).unwrap();
    judge(&image.0);
    assert_eq!(debugfs(&image.0, "cat /lost+found"), "mine");
}

#[test]
fn an_attribute_block_has_at_most_1024_users() {
    let mut make = Maker::default();
    let names: Vec<_> = (0..3_000).map(|n| format!("f{n}").into_bytes()).collect();
    let nodes: Vec<_> = (0..3_000).map(|_| make.file(Vec::new())).collect();
    for &node in &nodes {
        make.xattrs(node, &[(b"user.shared", &[1; 500])]);
    }
    let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(nodes).collect();
    let image = build(&make.finish(&entries), &min(), 2).unwrap();
    judge(&image.0);
    assert!(debugfs(&image.0, "ea_list /f2999").contains("user.shared (500)"));
}

#[test]
fn what_ext4_cannot_hold_is_an_error_with_its_path() {
    let mut make = Maker::default();
    let device = make.node(Kind::CharDevice(Device {
        major: 4096,
        minor: 0,
    }));
    let sub = make.directory(&[(b"dev", device)]);
    let tree = make.finish(&[(b"sub", sub)]);
    let error = Plan::new(&tree, &min()).unwrap_err().to_string();
    assert!(
        error.starts_with("/sub/dev: device number 4096:0"),
        "{error}"
    );

    let mut make = Maker::default();
    let file = make.file(Vec::new());
    let names: Vec<_> = (0..300).map(|n| format!("user.{n}").into_bytes()).collect();
    let set: Vec<(&[u8], &[u8])> = names
        .iter()
        .map(|name| (name.as_slice(), &b"1"[..]))
        .collect();
    make.xattrs(file, &set);
    let error = Plan::new(&make.finish(&[(b"f", file)]), &min())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/f: the names of its extended attributes need more"),
        "{error}"
    );
}

/// Where the content of each inode lies that two images have in common.
#[test]
fn what_a_layer_hides_leaves_its_place() {
    let base = |hidden: bool| {
        let mut make = Maker::default();
        let first = make.file(vec![1; 10_000]);
        let last = make.file(vec![3; 10_000]);
        let mut entries: Vec<(&[u8], NodeId)> = vec![(b"first", first), (b"last", last)];
        let middle = if hidden {
            None
        } else {
            let middle = make.file(vec![2; 10_000]);
            entries.push((b"middle", middle));
            Some(middle)
        };
        make.fill(NodeId::ROOT, &entries);
        let mut tree = make.tree;
        tree.push_slot(Slot::Directory {
            node: NodeId::ROOT,
            names: 3,
            bytes: 15,
        })
        .unwrap();
        tree.push_slot(Slot::Node(first)).unwrap();
        tree.push_slot(match middle {
            Some(node) => Slot::Node(node),
            None => Slot::Ghost {
                inode: true,
                size: 10_000,
            },
        })
        .unwrap();
        tree.push_slot(Slot::Node(last)).unwrap();
        tree
    };
    let places = |tree: &Tree| {
        let image = build(tree, &ImageOptions::default(), 1).unwrap();
        judge(&image.0);
        ["first", "last"].map(|name| {
            let stat = debugfs(&image.0, &format!("stat /{name}"));
            let number = stat.split_whitespace().nth(1).unwrap().to_owned();
            (number, debugfs(&image.0, &format!("blocks /{name}")))
        })
    };
    assert_eq!(places(&base(false)), places(&base(true)));
}

#[test]
fn profiles_are_what_they_say() {
    let mut make = Maker::default();
    let names: Vec<_> = (0..40_000)
        .map(|n| format!("{n:050}").into_bytes())
        .collect();
    let node = make.node(Kind::Fifo);
    let entries: Vec<_> = names.iter().map(|name| (name.as_slice(), node)).collect();
    let wide = make.directory(&entries);
    let large = make.file(vec![7; 12 << 20]);
    make.xattrs(large, &[(b"user.large", &[7; 3000])]);
    let tree = make.finish(&[(b"wide", wide), (b"large", large)]);
    for profile in [Profile::Default, Profile::Compat, Profile::Readonly] {
        for size in [Size::Auto, Size::Min, Size::Bytes(600 << 20)] {
            let options = ImageOptions {
                profile,
                size,
                ..ImageOptions::default()
            };
            let image = build(&tree, &options, 2).unwrap();
            judge(&image.0);
            let stats = debugfs(&image.0, "stats -h");
            let features = stats
                .lines()
                .find(|line| line.contains("features:"))
                .unwrap();
            let has = |name: &str| features.split_whitespace().any(|word| word == name);
            let modern = profile != Profile::Compat;
            assert_eq!(has("metadata_csum"), modern, "{features}");
            assert_eq!(has("64bit"), modern, "{features}");
            assert_eq!(has("uninit_bg"), !modern, "{features}");
            assert_eq!(
                has("has_journal"),
                profile != Profile::Readonly,
                "{features}"
            );
            assert_eq!(
                has("resize_inode"),
                profile != Profile::Readonly,
                "{features}"
            );
            if profile == Profile::Readonly && size != Size::Bytes(600 << 20) {
                assert!(stats.contains("Free blocks:              0"), "{stats}");
            }
        }
    }
}

#[test]
fn the_journal_is_as_wished() {
    let tree = varied();
    for (journal, text) in [
        (JournalSize::None, ""),
        (
            JournalSize::Bytes(16 << 20),
            "Total journal size:       16M",
        ),
        (
            JournalSize::Bytes(1 << 30),
            "Total journal size:       1024M",
        ),
    ] {
        for size in [Size::Auto, Size::Min] {
            let options = ImageOptions {
                journal,
                size,
                ..ImageOptions::default()
            };
            let image = build(&tree, &options, 2).unwrap();
            judge(&image.0);
            let stats = std::process::Command::new("dumpe2fs")
                .arg("-h")
                .arg(&image.0)
                .output();
            let stats = String::from_utf8(stats.unwrap().stdout).unwrap();
            assert!(stats.contains(text), "{stats}");
            assert_eq!(stats.contains("has_journal"), journal != JournalSize::None);
        }
    }
    for bytes in [0, 1 << 20, 1 << 50] {
        let options = ImageOptions {
            journal: JournalSize::Bytes(bytes),
            ..min()
        };
        assert!(matches!(
            Plan::new(&tree, &options),
            Err(Error::InvalidOption { .. })
        ));
    }
}

#[test]
fn reserved_blocks_are_for_root_and_beside_the_free_ones() {
    let tree = varied();
    let options = ImageOptions {
        reserved: 10 << 20,
        ..ImageOptions::default()
    };
    let plan = Plan::new(&tree, &options).unwrap();
    assert!(plan.free_blocks() * 4096 >= options.free_space + options.reserved);
    let image = build(&tree, &options, 2).unwrap();
    judge(&image.0);
    assert!(debugfs(&image.0, "stats -h").contains("Reserved block count:     2560"));
}

#[test]
fn values_that_do_not_fit_have_inodes_of_their_own() {
    let mut make = Maker::default();
    let shared = vec![5; 65_536];
    let names: Vec<_> = (0..1_500).map(|n| format!("f{n}").into_bytes()).collect();
    let nodes: Vec<_> = (0..1_500).map(|_| make.file(Vec::new())).collect();
    for (n, &node) in nodes.iter().enumerate() {
        let own = vec![n as u8; 4_000];
        match n % 3 {
            0 => make.xattrs(node, &[(b"user.shared", &shared), (b"user.own", &own)]),
            1 => make.xattrs(
                node,
                &[(b"user.a", &shared), (b"user.b", &shared), (b"user.c", b"")],
            ),
            _ => make.xattrs(node, &[(b"trusted.own", &own)]),
        }
    }
    let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(nodes).collect();
    let tree = make.finish(&entries);
    for profile in [Profile::Default, Profile::Compat, Profile::Readonly] {
        let options = ImageOptions {
            profile,
            ..ImageOptions::default()
        };
        let image = build(&tree, &options, 2).unwrap();
        judge(&image.0);
        assert!(debugfs(&image.0, "stats -h").contains("ea_inode"));
        assert!(debugfs(&image.0, "ea_list /f3").contains("user.shared (65536)"));
        assert!(debugfs(&image.0, "ea_list /f4").contains("user.b (65536)"));
    }
    // Nobody needs one: nobody must know the feature.
    let image = build(&varied(), &ImageOptions::default(), 1).unwrap();
    assert!(!debugfs(&image.0, "stats -h").contains("ea_inode"));
}

#[test]
fn more_names_than_ext4_counts_are_divided() {
    let mut make = Maker::default();
    let file = make.file(b"shared".to_vec());
    make.xattrs(file, &[(b"user.large", &[7; 3000])]);
    let names: Vec<_> = (0..70_000)
        .map(|n| format!("{n:05}").into_bytes())
        .collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_slice(), file)).collect();
    let first = make.directory(&entries);
    let second = make.directory(&entries);
    let mut tree = make.finish(&[(b"first", first), (b"second", second)]);
    assert!(
        Plan::new(&tree, &min()).is_err(),
        "the plan itself refuses them"
    );
    let warnings = tree.split_links(LINK_MAX).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("/first/00000: 140000 hard links"),
        "{warnings:?}"
    );
    let image = build(&tree, &ImageOptions::default(), 2).unwrap();
    judge(&image.0);
    for (path, links) in [
        ("first/00000", 65_000),
        ("first/65000", 65_000),
        ("second/69999", 10_000),
    ] {
        let stat = debugfs(&image.0, &format!("stat /{path}"));
        assert!(stat.contains(&format!("Links: {links}")), "{path}: {stat}");
        assert_eq!(debugfs(&image.0, &format!("cat /{path}")), "shared");
    }
    assert!(tree.split_links(LINK_MAX).unwrap().is_empty());
}
