//! Is this file a sound ext4? Magic, checksums, and the geometry against the
//! file's size.
//!
//! Of two depths. [`Depth::Surface`] looks at the superblock, every group
//! descriptor, every bitmap and the root directory's inode: enough to know that
//! an image was finished and was not changed or cut since, in milliseconds.
//! [`Depth::All`] finds what `e2fsck -fn` finds.
//!
//! The image may be anyone's: whatever it says is compared with what can be
//! before it is used, memory is bounded by what is in use, and the number of
//! groups looked at is bounded.

mod deep;
mod features;
mod groups;
mod report;
mod root;
mod superblock;

use std::path::Path;

pub use super::read::superblock::Journal;
pub use report::{ImageReport, Problem};

use super::read::features::compat;
use super::read::filesystem::Filesystem;
use super::read::geometry::Geometry;
use super::read::group_desc::Sums;
use super::read::image::Image;
use super::read::journal;
use super::read::superblock::{Superblock, MAGIC, MAGIC_AT, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use super::read::Fault;
use crate::control::Control;
use crate::error::Result;

/// Whether `path` is a file (or block device) with ext4's magic number where
/// ext2, ext3 and ext4 have it. `false` for whatever cannot be read: this is
/// the question "may it be one", [`check_image`] tells more.
#[must_use]
pub fn has_magic(path: &Path) -> bool {
    let mut magic = [0; 2];
    Image::open(path)
        .and_then(|image| image.read(SUPERBLOCK_OFFSET + MAGIC_AT, &mut magic))
        .is_ok_and(|whole| whole && u16::from_le_bytes(magic) == MAGIC)
}

/// How far a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Superblock, groups' descriptors and bitmaps, root directory's inode.
    Surface,
    /// Every inode, directory, extent tree, attribute and bitmap.
    All,
}

/// Looks at the image at `path`, through symlinks. What is wrong with it is in
/// the report.
///
/// # Errors
/// When it cannot be read, or is neither a regular file nor a block device, and
/// [`crate::Error::Interrupted`].
pub fn check_image(path: &Path, depth: Depth, control: &Control) -> Result<ImageReport> {
    let image = Image::open(path)?;
    let mut report = ImageReport::new(image.size());

    let mut raw = [0; SUPERBLOCK_SIZE];
    if !image.read(SUPERBLOCK_OFFSET, &mut raw)? {
        report.problem(
            "too-short",
            format!(
                "the file has {} bytes; an ext4 superblock ends at byte 2048",
                image.size()
            ),
        );
        return Ok(report);
    }
    let sb = Superblock::decode(&raw);
    if sb.s_magic != MAGIC {
        report.problem(
            "bad-magic",
            format!(
                "no ext2, ext3 or ext4: the magic number at byte 1080 is 0x{:04x}, not 0x{MAGIC:04x}",
                sb.s_magic
            ),
        );
        return Ok(report);
    }
    report.describe(&sb);
    superblock::verify_checksum(&sb, &raw, &mut report);
    superblock::verify_state(&sb, &mut report);
    if !features::verify(&sb, &mut report) {
        return Ok(report);
    }
    // What follows would be looked for at senseless places without it.
    let problem = |code, text| report.problem(code, text);
    let Some(geometry) = Geometry::of(&sb, image.size(), problem) else {
        return Ok(report);
    };
    report.groups = geometry.groups;
    let mut fs = Filesystem {
        sums: Sums::of(&sb),
        image,
        sb,
        geometry,
    };
    if depth == Depth::All {
        replay(&mut fs, &mut report, control)?;
    }
    let first_table = groups::verify(&fs.image, &fs.sb, &fs.geometry, &mut report, control)?;
    if depth == Depth::All && report.groups_are_placed() {
        deep::verify(&fs, &mut report, control)?;
    } else if let Some(table) = first_table {
        root::verify(&fs.image, &fs.sb, &fs.geometry, table, &mut report)?;
    }
    Ok(report)
}

/// Replays the journal in memory: what is behind it are faults, and what a mount
/// would set right is none. e2fsck, when it may not write, skips that.
fn replay(fs: &mut Filesystem, report: &mut ImageReport, control: &Control) -> Result<()> {
    if !fs.sb.has_compat(compat::HAS_JOURNAL) {
        return Ok(());
    }
    match journal::replay(fs, control) {
        Ok(_) => Ok(()),
        Err(Fault::Host(error)) => Err(error),
        Err(Fault::Nonsense(text)) => {
            report.problem(
                "journal-not-replayed",
                format!("the journal cannot be replayed, so what follows is of the state before: {text}"),
            );
            Ok(())
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
