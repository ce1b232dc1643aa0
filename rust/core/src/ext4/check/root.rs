//! The root directory's inode.

use super::checksum::crc32c;
use super::geometry::Geometry;
use super::read::{u16_at, u32_at, Image};
use super::report::ImageReport;
use super::superblock::Superblock;
use crate::error::Result;

/// `EXT4_ROOT_INO`
const ROOT_INODE: u32 = 2;
/// `EXT4_GOOD_OLD_INODE_SIZE`: the part that every inode has.
const OLD_SIZE: usize = 128;
/// Where the halves of the checksum are.
const CHECKSUM_LO: usize = 0x7c;
const CHECKSUM_HI: usize = 0x82;

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
        let (stored, computed) = checksums(&raw, sb.checksum_seed());
        if stored != computed {
            report.problem(
                "inode-checksum",
                format!("inode 2: its checksum is 0x{stored:08x}, its bytes give 0x{computed:08x}"),
            );
        }
    }
    Ok(())
}

/// The stored and the computed checksum (`ext4_inode_csum`): over number,
/// generation and the inode with the checksum's halves as zero. The high half
/// exists when `i_extra_isize` reaches behind it.
fn checksums(raw: &[u8], seed: u32) -> (u32, u32) {
    let mut bytes = raw.to_vec();
    bytes[CHECKSUM_LO..CHECKSUM_LO + 2].fill(0);
    let extra = if raw.len() > OLD_SIZE {
        usize::from(u16_at(raw, 0x80))
    } else {
        0
    };
    let has_high = OLD_SIZE + extra >= CHECKSUM_HI + 2 && raw.len() > OLD_SIZE;
    if has_high {
        bytes[CHECKSUM_HI..CHECKSUM_HI + 2].fill(0);
    }
    let generation = &raw[0x64..0x68];
    let register = crc32c(crc32c(seed, &ROOT_INODE.to_le_bytes()), generation);
    let computed = crc32c(register, &bytes);
    let low = u32::from(u16_at(raw, CHECKSUM_LO));
    if has_high {
        (low | u32::from(u16_at(raw, CHECKSUM_HI)) << 16, computed)
    } else {
        (low, computed & 0xffff)
    }
}
