//! The least size, for many trees: it is enough, and one block less is not.
#![allow(missing_docs)]

mod common;

use common::{build, debugfs, judge, Maker};
use layermelt_core::ext4::plan::{ImageOptions, JournalSize, Plan, Profile, Size};
use layermelt_core::tree::{NodeId, Tree};
use layermelt_core::Error;

/// xorshift64: the same trees in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn random_tree(numbers: &mut Numbers) -> Tree {
    let mut make = Maker::default();
    let count = [0, 1, 3, 40, 900, 7_000][numbers.below(6) as usize];
    let largest = [1, 900, 5_000, 70_000][numbers.below(4) as usize];
    let names: Vec<Vec<u8>> = (0..count)
        .map(|n| format!("{n:0width$}", width = numbers.below(200) as usize + 5).into_bytes())
        .collect();
    let nodes: Vec<NodeId> = names
        .iter()
        .map(|_| match numbers.below(20) {
            0 => make.symlink(&vec![b'x'; numbers.below(1000) as usize + 1]),
            1 => make.directory(&[]),
            _ => {
                let size = numbers.below(largest) as usize;
                let file = make.file(vec![1; size]);
                if numbers.below(9) == 0 {
                    let value = vec![2; numbers.below(6_000) as usize];
                    make.xattrs(file, &[(b"user.value", &value)]);
                }
                file
            }
        })
        .collect();
    let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(nodes).collect();
    make.finish(&entries)
}

#[test]
fn one_block_less_is_never_enough() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..60 {
        let tree = random_tree(&mut numbers);
        let wish = ImageOptions {
            block_size: [1024, 2048, 4096][numbers.below(3) as usize],
            profile: [Profile::Default, Profile::Compat, Profile::Readonly]
                [numbers.below(3) as usize],
            size: Size::Min,
            ..ImageOptions::default()
        };
        // e2fsck takes a file system for corrupt that reserves more than half.
        let reserved = [0, 0, 1 << 20, 70 << 20][numbers.below(4) as usize];
        let wish = ImageOptions {
            journal: match numbers.below(3) {
                0 => JournalSize::None,
                _ => JournalSize::Auto,
            },
            reserved: if wish.profile == Profile::Readonly {
                0
            } else {
                reserved
            },
            ..wish
        };
        let least = Plan::new(&tree, &wish).unwrap();
        let bytes = least.image_bytes();
        if wish.profile == Profile::Readonly {
            assert_eq!(least.free_blocks(), 0, "round {round}");
        }
        if round % 4 == 0 {
            judge(&build(&tree, &wish, 2).unwrap().0);
        }
        let given = |bytes| ImageOptions {
            size: Size::Bytes(bytes),
            ..wish.clone()
        };
        let exact = Plan::new(&tree, &given(bytes)).unwrap();
        assert_eq!(exact.image_bytes(), bytes, "round {round}");
        // A few more: a larger journal, or a group that does not hold its own blocks.
        let more = [1, 5, 40, 700, 9_000, 40_000][numbers.below(6) as usize];
        if round % 3 == 1 {
            let more = bytes + more * u64::from(wish.block_size);
            let larger = build(&tree, &given(more), 2).unwrap();
            assert_eq!(std::fs::metadata(&larger.0).unwrap().len(), more);
            judge(&larger.0);
        }
        // One less, and sizes far below it.
        for less in [1, 2, 3, 17, 300, 4_000] {
            let Some(less) = bytes.checked_sub(less * u64::from(wish.block_size)) else {
                continue;
            };
            match Plan::new(&tree, &given(less)) {
                Err(Error::TooSmall { needed, .. }) => assert_eq!(needed, bytes, "round {round}"),
                Ok(plan) => panic!("round {round}: {} of {bytes} bytes", plan.image_bytes()),
                Err(other) => panic!("round {round}: {other}"),
            }
        }
    }
}

/// From 2,048 blocks on there is a journal, which has 1,024 blocks at the least:
/// where that does not fit, it is none and not half of one.
#[test]
fn a_journal_is_whole_or_none() {
    let journals = (300u64..1900).step_by(100).map(|used| {
        let mut make = Maker::default();
        let file = make.file(vec![1; used as usize * 2048]);
        let tree = make.finish(&[(b"file", file)]);
        let wish = ImageOptions {
            block_size: 2048,
            size: Size::Bytes(2049 * 2048),
            ..ImageOptions::default()
        };
        let image = build(&tree, &wish, 1).unwrap();
        judge(&image.0);
        debugfs(&image.0, "stats -h").contains("has_journal")
    });
    let journals: Vec<_> = journals.collect();
    assert!(journals.contains(&true) && journals.contains(&false));
}

#[test]
fn nothing_is_reserved_where_nobody_writes() {
    let tree = Maker::default().finish(&[]);
    let wish = |profile| ImageOptions {
        profile,
        reserved: 1 << 20,
        ..ImageOptions::default()
    };
    let error = Plan::new(&tree, &wish(Profile::Readonly)).unwrap_err();
    assert!(error.to_string().contains("profile readonly"), "{error}");
    assert!(Plan::new(&tree, &wish(Profile::Compat)).is_ok());
}

#[test]
fn what_is_reserved_is_no_more_than_half() {
    let tree = Maker::default().finish(&[]);
    for size in [Size::Auto, Size::Min, Size::Bytes(10 << 20)] {
        let wish = |reserved| ImageOptions {
            size,
            reserved,
            free_space: 0,
            ..ImageOptions::default()
        };
        let plan = Plan::new(&tree, &wish(5 << 20)).unwrap();
        assert!(plan.image_bytes() >= 10 << 20);
        judge(&build(&tree, &wish(5 << 20), 1).unwrap().0);
        for far_too_much in [(5 << 20) + 1, 1 << 50, u64::MAX] {
            match (size, far_too_much) {
                (Size::Auto | Size::Min, 5_242_881) => {
                    judge(&build(&tree, &wish(far_too_much), 1).unwrap().0);
                }
                _ => assert!(Plan::new(&tree, &wish(far_too_much)).is_err()),
            }
        }
    }
}

#[test]
fn of_a_million_entries() {
    let mut make = Maker::default();
    let names: Vec<_> = (0..1000).map(|n| format!("{n:04}").into_bytes()).collect();
    let mut directories = Vec::new();
    for name in &names {
        let files: Vec<_> = names.iter().map(|_| make.file(Vec::new())).collect();
        let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(files).collect();
        directories.push((name.as_slice(), make.directory(&entries)));
    }
    let tree = make.finish(&directories);
    let wish = |size| ImageOptions {
        size,
        ..ImageOptions::default()
    };
    let image = build(&tree, &wish(Size::Min), 2).unwrap();
    judge(&image.0);
    assert!(debugfs(&image.0, "stat /0999/0999").contains("Type: regular"));
    let least = std::fs::metadata(&image.0).unwrap().len();
    assert!(Plan::new(&tree, &wish(Size::Bytes(least - 4096))).is_err());
}
