//! Images of blocks of 1,024 and 2,048 bytes, judged by e2fsck and debugfs.
#![allow(missing_docs)]

mod common;

use common::trees::many;
use common::{build, debugfs, judge, told, Maker};
use layermelt_core::ext4::plan::{ImageOptions, JournalSize, Plan, Profile, Size};
use layermelt_core::tree::{Device, Kind, NodeId, Tree};
use layermelt_core::Error;

const SIZES: [u32; 3] = [1024, 2048, 4096];
const PROFILES: [Profile; 3] = [Profile::Default, Profile::Compat, Profile::Readonly];

fn options(block_size: u32, profile: Profile, size: Size) -> ImageOptions {
    ImageOptions {
        block_size,
        profile,
        size,
        ..ImageOptions::default()
    }
}

/// One of everything that the smallest blocks hold.
fn varied() -> Tree {
    let mut make = Maker::default();
    let small = make.file(b"hello".to_vec());
    let large = make.file((0..9_000_000u32).map(|n| (n % 251) as u8).collect());
    let odd = make.file(vec![7; 1025]);
    let long = make.symlink(&[b'y'; 60]);
    let longest = make.symlink(&[b'z'; 1023]);
    let device = make.node(Kind::BlockDevice(Device {
        major: 259,
        minor: 70000,
    }));
    make.xattrs(small, &[(b"user.a", b"1"), (b"user.b", &[2; 900])]);
    make.xattrs(large, &[(b"user.b", &[2; 900])]);
    make.xattrs(odd, &[(b"user.value", &[7; 3000]), (b"trusted.x", b"")]);
    make.xattrs(longest, &[(b"trusted.on_a_link", &[3; 65_536])]);
    let names: Vec<_> = (0..5_000)
        .map(|n| format!("{n:040}").into_bytes())
        .collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_slice(), small)).collect();
    let wide = make.directory(&entries);
    make.finish(&[
        (b"small", small),
        (b"large", large),
        (b"odd", odd),
        (b"long", long),
        (b"longest", longest),
        (b"device", device),
        (b"wide", wide),
    ])
}

#[test]
fn every_profile_and_size_of_every_block_size_is_clean() {
    let trees = [
        Maker::default().finish(&[]),
        varied(),
        // Many groups, and inodes beyond one for 16 KiB.
        many(30_000, 700),
    ];
    for block_size in SIZES {
        for profile in PROFILES {
            for size in [Size::Auto, Size::Min, Size::Bytes((300 << 20) + 1024)] {
                for tree in &trees {
                    let options = options(block_size, profile, size);
                    judge(&build(tree, &options, 2).unwrap().0);
                }
            }
        }
    }
}

#[test]
fn what_is_written_is_there() {
    let tree = varied();
    for block_size in SIZES {
        let options = options(block_size, Profile::Default, Size::Auto);
        let image = build(&tree, &options, 2).unwrap();
        assert!(
            std::fs::read(&image.0).unwrap() == told(&tree, &options),
            "the file is what the regions tell"
        );
        assert_eq!(debugfs(&image.0, "cat /small"), "hello");
        assert!(debugfs(&image.0, "stat /large").contains("Size: 9000000"));
        assert!(debugfs(&image.0, "stat /longest").contains("Size: 1023"));
        assert!(debugfs(&image.0, "ea_get /odd user.value").contains("(3000)"));
        assert!(debugfs(&image.0, "ea_list /longest").contains("trusted.on_a_link (65536)"));
        let stats = debugfs(&image.0, "stats -h");
        assert!(stats.contains(&format!("Block size:               {block_size}")));
        let first = u32::from(block_size == 1024);
        assert!(stats.contains(&format!("First block:              {first}")));
    }
}

#[test]
fn the_least_size_is_enough_and_one_block_less_is_not() {
    for block_size in SIZES {
        for profile in PROFILES {
            for tree in [Maker::default().finish(&[]), varied(), many(9_000, 900)] {
                let wish = |size| options(block_size, profile, size);
                let least = Plan::new(&tree, &wish(Size::Min)).unwrap().image_bytes();
                judge(&build(&tree, &wish(Size::Bytes(least)), 2).unwrap().0);
                let less = Size::Bytes(least - u64::from(block_size));
                match Plan::new(&tree, &wish(less)) {
                    Err(Error::TooSmall { needed, .. }) => assert_eq!(needed, least),
                    other => panic!("{:?}", other.map(|plan| plan.image_bytes())),
                }
            }
        }
    }
}

/// A directory, with its names: in the smallest blocks 123 lie below the root and
/// 126 below each node, so that more leaves need a third level, and with it
/// `large_dir`.
fn wide(make: &mut Maker) -> (NodeId, Vec<Vec<u8>>) {
    let names: Vec<_> = (0..60_000)
        .map(|n| format!("{n:0255}").into_bytes())
        .collect();
    let node = make.node(Kind::Fifo);
    let entries: Vec<_> = names.iter().map(|name| (name.as_slice(), node)).collect();
    (make.directory(&entries), names)
}

#[test]
fn an_index_of_three_levels() {
    let mut make = Maker::default();
    let (wide, names) = wide(&mut make);
    let tree = make.finish(&[(b"wide", wide)]);
    let image = build(&tree, &options(1024, Profile::Default, Size::Auto), 2).unwrap();
    judge(&image.0);
    assert!(debugfs(&image.0, "stats -h").contains("large_dir"));
    let dump = debugfs(&image.0, "htree_dump /wide");
    assert!(dump.contains("Indirect levels: 2"), "{}", &dump[..2000]);
    for name in [&names[0], &names[31_111], &names[59_999]] {
        let name = String::from_utf8_lossy(name);
        let found = debugfs(&image.0, &format!("stat /wide/{name}"));
        assert!(found.contains("Type: FIFO"), "{found}");
    }
    // Where two levels are enough nobody must know the feature.
    let image = build(&tree, &options(4096, Profile::Default, Size::Auto), 2).unwrap();
    judge(&image.0);
    assert!(!debugfs(&image.0, "stats -h").contains("large_dir"));
}

/// `ea_inode` and `large_dir` came with Linux 4.13.
#[test]
fn what_old_kernels_do_not_mount_is_said_of_their_profile() {
    let mut make = Maker::default();
    let (wide, _) = wide(&mut make);
    let file = make.file(Vec::new());
    make.xattrs(file, &[(b"user.v", &[7; 1500])]);
    let tree = make.finish(&[(b"value", file), (b"wide", wide)]);
    let warnings = |block_size, profile| {
        let plan = Plan::new(&tree, &options(block_size, profile, Size::Min)).unwrap();
        plan.warnings().to_vec()
    };
    let told = warnings(1024, Profile::Compat);
    for (warning, (path, feature)) in told
        .iter()
        .zip([("/value: ", "ea_inode"), ("/wide: ", "large_dir")])
    {
        assert!(warning.starts_with(path), "{warning}");
        assert!(warning.contains(feature), "{warning}");
        assert!(warning.contains("choose a larger block size"), "{warning}");
    }
    assert_eq!(told.len(), 2);
    assert!(warnings(4096, Profile::Compat).is_empty());
    assert!(warnings(1024, Profile::Default).is_empty());
}

#[test]
fn what_small_blocks_do_not_hold_is_an_error_with_its_path() {
    let refused = |block_size, name: &[u8], target: usize| {
        let mut make = Maker::default();
        let link = make.symlink(&vec![b'x'; target]);
        let tree = make.finish(&[(name, link)]);
        let options = options(block_size, Profile::Default, Size::Min);
        Plan::new(&tree, &options)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    for (block_size, target) in [(1024, 1024), (2048, 2048), (4096, 4096)] {
        let error = refused(block_size, b"link", target);
        assert!(
            error.starts_with(&format!("/link: a symlink of {target} bytes")),
            "{error}"
        );
        let advice = error.contains("choose a larger block size");
        assert_eq!(advice, block_size < 4096, "{error}");
    }

    let mut make = Maker::default();
    let file = make.file(Vec::new());
    let names: Vec<_> = (0..60).map(|n| format!("user.{n}").into_bytes()).collect();
    let set: Vec<(&[u8], &[u8])> = names.iter().map(|n| (n.as_slice(), &b"1"[..])).collect();
    make.xattrs(file, &set);
    let tree = make.finish(&[(b"f", file)]);
    let plan = |block_size| Plan::new(&tree, &options(block_size, Profile::Default, Size::Min));
    let error = plan(1024).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("one block of 1024 bytes") && error.contains("larger block size"),
        "{error}"
    );
    assert!(plan(4096).is_ok());

    let tree = Maker::default().finish(&[]);
    for wrong in [0, 512, 1000, 8192, 65_536] {
        let options = options(wrong, Profile::Default, Size::Min);
        let error = Plan::new(&tree, &options).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    }
}

#[test]
fn the_largest_images_of_small_blocks() {
    let tree = many(10, 5_000);
    for (block_size, largest) in [(1024, 256u64 << 30), (2048, 4 << 40)] {
        for profile in PROFILES {
            let wish = |bytes| options(block_size, profile, Size::Bytes(bytes));
            let plan = Plan::new(&tree, &wish(largest - 1)).unwrap();
            assert_eq!(plan.image_bytes(), largest - u64::from(block_size));
            let error = Plan::new(&tree, &wish(largest + u64::from(block_size)));
            let error = error.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("larger block size"), "{error}");
        }
    }
    judge(
        &build(
            &tree,
            &options(1024, Profile::Default, Size::Bytes(64 << 30)),
            2,
        )
        .unwrap()
        .0,
    );
    // Blocks are counted in 32 bits without the feature 64bit.
    let wish = |bytes| options(4096, Profile::Compat, Size::Bytes(bytes));
    assert!(Plan::new(&tree, &wish((16 << 40) - 4096)).is_ok());
    assert!(Plan::new(&tree, &wish(16 << 40)).is_err());
}

/// The kernel mounts only what has as many inodes as its groups together.
#[test]
fn inodes_up_to_the_last_number() {
    let tree = Maker::default().finish(&[]);
    let sizes = [Size::Auto, Size::Min, Size::Bytes(16 << 40)];
    for (size, most) in sizes
        .into_iter()
        .zip([131_071 << 15, 131_071 << 15, 4_292_870_144])
    {
        let wish = |inodes| ImageOptions {
            inodes: Some(inodes),
            size,
            ..ImageOptions::default()
        };
        let plan = Plan::new(&tree, &wish(most)).unwrap();
        assert_eq!(u64::from(plan.inode_count()), most);
        for more in [most + 1, u64::from(u32::MAX)] {
            let error = Plan::new(&tree, &wish(more)).unwrap_err();
            let of = "bytes has at most 4292870144";
            assert!(error.to_string().contains(of), "{error}");
        }
    }
}

/// 2,000,000,000 inodes are 244,141 groups of the smallest blocks, whose
/// descriptors are larger than a group.
#[test]
fn inodes_beyond_the_largest_image_are_refused() {
    let tree = Maker::default().finish(&[]);
    for size in [Size::Auto, Size::Min, Size::Bytes(1 << 30)] {
        for profile in PROFILES {
            let wish = ImageOptions {
                inodes: Some(2_000_000_000),
                ..options(1024, profile, size)
            };
            let error = Plan::new(&tree, &wish).unwrap_err().to_string();
            assert!(error.contains("fewer inodes"), "{error}");
        }
    }
}

#[test]
fn journals_are_counted_in_blocks() {
    let tree = many(10, 5_000);
    for block_size in SIZES {
        for (bytes, good) in [(1024, true), (1023, false)] {
            let options = ImageOptions {
                journal: JournalSize::Bytes(bytes * u64::from(block_size)),
                ..options(block_size, Profile::Default, Size::Auto)
            };
            assert_eq!(Plan::new(&tree, &options).is_ok(), good);
            if good {
                judge(&build(&tree, &options, 1).unwrap().0);
            }
        }
    }
}
