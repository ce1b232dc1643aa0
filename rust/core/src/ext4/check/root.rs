//! The root directory's inode.

use super::report::ImageReport;
use crate::error::Result;
use crate::ext4::read::bytes::{u16_at, u32_at};
use crate::ext4::read::geometry::Geometry;
use crate::ext4::read::image::Image;
use crate::ext4::read::inode::{self, ROOT_INODE};
use crate::ext4::read::superblock::Superblock;

const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;

/// Looks at the root's inode, in group 0's table at block `table`.
pub(super) fn verify(
    image: &Image,
    sb: &Superblock,
    geometry: &Geometry,
    table: u64,
    report: &mut ImageReport,
) -> Result<()> {
    let size = u64::from(geometry.inode_size);
    let mut raw = vec![0; geometry.inode_size.into()];
    let at = geometry.byte(table) + u64::from(ROOT_INODE - 1) * size;
    if !image.read(at, &mut raw)? {
        report.problem(
            "truncated",
            "the root directory's inode is behind the end of the file".into(),
        );
        return Ok(());
    }
    let i_mode = u16_at(&raw, 0x00);
    if i_mode & S_IFMT != S_IFDIR {
        report.problem(
            "root-inode",
            format!("inode 2 is no directory: its mode is 0{i_mode:o}"),
        );
    }
    let (i_dtime, i_links_count) = (u32_at(&raw, 0x14), u16_at(&raw, 0x1a));
    if i_links_count == 0 || i_dtime != 0 {
        report.problem(
            "root-inode",
            format!("inode 2 is deleted: it has {i_links_count} links and i_dtime {i_dtime}"),
        );
    }
    if sb.has_checksums() {
        let (stored, computed) = inode::checksums(ROOT_INODE, &raw, sb.checksum_seed());
        if stored != computed {
            report.problem(
                "inode-checksum",
                format!("inode 2: its checksum is 0x{stored:08x}, its bytes give 0x{computed:08x}"),
            );
        }
    }
    Ok(())
}
