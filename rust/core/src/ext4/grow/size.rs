//! Which size a wish comes to.

use std::path::Path;

use super::fault::unsupported;
use super::shape::Shape;
use crate::error::{Error, Result};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// That many bytes in all.
    Bytes(u64),
    /// That many more than the file system has.
    More(u64),
    /// As many as the file or device has.
    Whole,
}

/// Beyond 16 TiB nothing has been tried.
const MAX_BYTES: u64 = 1 << 44;
/// What resize2fs wants to be of use in a last group (`adjust_fs_info`).
const USEFUL: u64 = 50;

fn invalid(reason: String) -> Error {
    Error::InvalidOption {
        option: "size",
        reason,
    }
}

/// The size in bytes that `target` means.
pub(super) fn bytes(old: &Shape, target: Target, file: u64) -> Result<u64> {
    let now = old.byte(old.blocks);
    let wished = match target {
        Target::Bytes(bytes) => bytes,
        Target::More(bytes) => now
            .checked_add(bytes)
            .ok_or_else(|| invalid("it is above 2^64 bytes".into()))?,
        Target::Whole => file,
    };
    if wished / u64::from(old.block_size) < old.blocks {
        return Err(invalid(format!(
            "{wished} bytes are less than the {now} that the file system has; an image is never made smaller"
        )));
    }
    if wished > MAX_BYTES && wished > now {
        return Err(invalid(format!(
            "{wished} bytes are more than 16 TiB, the largest image"
        )));
    }
    Ok(wished)
}

/// The shape of the file system in so many bytes.
pub(super) fn shape(old: &Shape, bytes: u64, wide: bool, path: &Path) -> Result<Shape> {
    let mut blocks = bytes / u64::from(old.block_size);
    if !wide && blocks > u64::from(u32::MAX) {
        let most = old.byte(u64::from(u32::MAX));
        return Err(invalid(format!(
            "without the feature 64bit this file system has at most {most} bytes"
        )));
    }
    loop {
        if blocks <= old.blocks {
            return Ok(old.clone());
        }
        let groups = old.groups_of(blocks);
        let inodes = groups.checked_mul(u64::from(old.inodes_per_group));
        if inodes.is_none_or(|inodes| inodes > u64::from(u32::MAX)) {
            let groups = u64::from(u32::MAX / old.inodes_per_group);
            let most = old.byte(groups * u64::from(old.per_group));
            return Err(invalid(format!(
                "with {} inodes in a group this file system has at most {most} bytes",
                old.inodes_per_group
            )));
        }
        // OK to cut: fewer than the inodes.
        let new = describe(old, blocks, groups as u32, path)?;
        // As resize2fs and mke2fs: a last group that could hold but itself is
        // left out. One that is there already stays.
        let last = new.groups - 1;
        let rest = new.end(last) - new.start(last);
        let area = new.area(last);
        let own = area.end - area.start + 2 + u64::from(new.table_blocks());
        if new.groups > old.groups && rest < u64::from(new.per_group) && rest < own + USEFUL {
            blocks -= rest;
            continue;
        }
        return Ok(new);
    }
}

/// Where the descriptors of so many groups go: into the reserved blocks, and
/// beyond those each into its own group (`meta_bg`), as the kernel does
/// (`ext4_resize_fs`, `ext4_convert_meta_bg`).
fn describe(old: &Shape, blocks: u64, groups: u32, path: &Path) -> Result<Shape> {
    let mut new = Shape {
        blocks,
        groups,
        ..old.clone()
    };
    let (have, need) = (old.desc_blocks(), new.desc_blocks());
    if old.first_meta.is_some() || need <= have {
        new.demand_room(path)?;
        return Ok(new);
    }
    let room = have + old.reserved;
    if need <= room {
        new.reserved = room - need;
    } else {
        new.first_meta = Some(room);
        new.reserved = 0;
        new.resize_inode = false;
        // The block of group `descs_per_block - 1` and others must be groups of their own.
        if new.descs_per_block() < 4 {
            return Err(unsupported(path, "its descriptors are too large"));
        }
    }
    new.demand_room(path)?;
    Ok(new)
}
