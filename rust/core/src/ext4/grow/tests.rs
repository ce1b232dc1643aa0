//! Arithmetic; what images become is judged by e2fsck in the integration tests.

use super::place::batches;
use super::shape::Shape;
use super::size::{self, Target};
use std::path::Path;

/// The shape of `blocks` blocks of a file system that was made with `sb`'s fields.
fn shape_of(block_size: u32, blocks: u64, reserved: u16, wide: bool) -> Shape {
    let mut raw = [0; 1024];
    let mut put = |at: usize, value: u32| raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let per_group = block_size * 8;
    let first = u32::from(block_size == 1024);
    let groups = (blocks - u64::from(first)).div_ceil(u64::from(per_group)) as u32;
    put(0x00, groups * 2048);
    put(0x04, blocks as u32);
    put(0x14, first);
    put(0x18, block_size.ilog2() - 10);
    put(0x1c, block_size.ilog2() - 10);
    put(0x20, per_group);
    put(0x24, per_group);
    put(0x28, 2048);
    put(0x38, 0xef53);
    put(0x4c, 1);
    put(0x58, 256);
    put(0x5c, 0x10);
    put(0x60, 0x200 | if wide { 0x80 } else { 0 });
    put(0x64, 1);
    put(0x174, 4);
    raw[0x3a] = 1;
    raw[0xce..0xd0].copy_from_slice(&reserved.to_le_bytes());
    raw[0xfe] = if wide { 64 } else { 0 };
    let sb = super::superblock::Superblock::admit(raw, Path::new("image")).unwrap();
    Shape::of(&sb.fields(), 1 << 44, Path::new("image")).unwrap()
}

#[test]
fn reserved_blocks_are_taken_before_meta_bg() {
    let old = shape_of(4096, 65536, 127, true);
    assert_eq!((old.groups, old.desc_blocks()), (2, 1));
    let path = Path::new("image");
    let within = size::shape(&old, 1 << 40, true, path).unwrap();
    assert_eq!(
        (within.desc_blocks(), within.reserved, within.first_meta),
        (128, 0, None)
    );
    let beyond = size::shape(&old, (1 << 40) + (1 << 30), true, path).unwrap();
    assert_eq!(
        (beyond.classic(), beyond.reserved, beyond.first_meta),
        (128, 0, Some(128))
    );
    assert!(!beyond.resize_inode);
}

#[test]
fn a_last_group_of_no_use_is_left_out() {
    let old = shape_of(1024, 16385, 255, true);
    let path = Path::new("image");
    // Group 2 has no superblock: 2 bitmaps, 512 blocks of inodes, and 50.
    let least = (16385 + 2 + 512 + 50) << 10;
    assert_eq!(
        size::shape(&old, least, true, path).unwrap().blocks,
        least >> 10
    );
    assert_eq!(size::shape(&old, least - 1024, true, path).unwrap(), old);
}

#[test]
fn sizes_that_cannot_be() {
    let old = shape_of(4096, 65536, 127, true);
    let bytes = |target| size::bytes(&old, target, 1 << 30);
    assert_eq!(
        bytes(Target::More(1 << 20)).unwrap(),
        (256 << 20) + (1 << 20)
    );
    assert_eq!(bytes(Target::Whole).unwrap(), 1 << 30);
    assert!(bytes(Target::Bytes((256 << 20) - 1)).is_err());
    assert!(bytes(Target::Bytes((1 << 44) + 1)).is_err());
    assert!(bytes(Target::More(u64::MAX)).is_err());
    let narrow = shape_of(4096, 65536, 127, false);
    assert!(size::shape(&narrow, 1 << 44, false, Path::new("image")).is_err());
}

/// No two of the new groups' own blocks coincide, and all are beyond the old end.
#[test]
fn own_blocks_never_overlap() {
    for (block_size, wide) in [(1024, true), (2048, false), (4096, true)] {
        let old = shape_of(block_size, 20_001, 60, wide);
        for more in [1u64 << 20, 70 << 20, 1 << 30, 40 << 30] {
            let new = size::shape(&old, old.byte(old.blocks) + more, wide, Path::new("i")).unwrap();
            let mut own: Vec<_> = (old.groups..new.groups)
                .map(|group| new.area(group))
                .collect();
            for batch in batches(&new, old.groups) {
                let table = u64::from(new.table_blocks());
                for placed in &batch.placed {
                    own.push(placed.block_bitmap..placed.block_bitmap + 1);
                    own.push(placed.inode_bitmap..placed.inode_bitmap + 1);
                    own.push(placed.inode_table..placed.inode_table + table);
                }
                let used: u64 = batch.used.iter().map(|range| range.end - range.start).sum();
                assert_eq!(used, batch.placed.len() as u64 * (2 + table));
            }
            own.retain(|range| range.start < range.end);
            own.sort_by_key(|range| range.start);
            for pair in own.windows(2) {
                assert!(
                    pair[0].end <= pair[1].start,
                    "{block_size} {more}: {pair:?}"
                );
            }
            if let (Some(first), Some(last)) = (own.first(), own.last()) {
                assert!(first.start >= old.blocks && last.end <= new.blocks);
            }
        }
    }
}
