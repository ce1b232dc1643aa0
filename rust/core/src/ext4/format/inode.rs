//! Inodes (`struct ext4_inode`), 256 bytes each.

use bitflags::bitflags;

use super::checksum::Checksum;
use super::{high16, high32, low16, low32, put_u16, put_u32, BlockSize, INODE_SIZE};
use crate::tree::{Device, Timestamp};

/// `i_extra_isize`: the fields up to `i_projid`.
pub const EXTRA_ISIZE: u16 = 32;
/// Bytes of the fields every inode had since ext2.
const GOOD_OLD_SIZE: usize = 128;
/// Where the attributes in the inode begin.
pub const XATTR_OFFSET: usize = GOOD_OLD_SIZE + EXTRA_ISIZE as usize;
/// Bytes for attributes in the inode, with their magic number.
pub const XATTR_ROOM: usize = INODE_SIZE as usize - XATTR_OFFSET;
/// A symlink's target up to this length lies in `i_block`; with its NUL it
/// fills it (`EXT4_N_BLOCKS * 4 - 1`).
pub const FAST_SYMLINK_MAX: usize = 59;

/// The earliest second an inode can tell (1901-12-13).
pub const MIN_SECONDS: i64 = -(1 << 31);
/// The latest second an inode can tell (2446-05-10): the two epoch bits reach
/// `3 << 32` above a signed 32-bit number.
pub const MAX_SECONDS: i64 = 0x3_7fff_ffff;

bitflags! {
    /// `i_flags`
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InodeFlags: u32 {
        /// Nothing of it may be changed.
        const IMMUTABLE = 0x0000_0010;
        /// It may only be appended to.
        const APPEND = 0x0000_0020;
        /// `dump` leaves it out.
        const NODUMP = 0x0000_0040;
        /// Reading does not move its atime.
        const NOATIME = 0x0000_0080;
        /// The directory has a hash tree.
        const INDEX = 0x0000_1000;
        /// `i_blocks` counts blocks, not 512-byte sectors.
        const HUGE_FILE = 0x0004_0000;
        /// `i_block` holds an extent tree.
        const EXTENTS = 0x0008_0000;
        /// The inode holds the value of an attribute.
        const EA_INODE = 0x0020_0000;
    }
}

/// File types as `i_mode` has them.
pub mod mode {
    /// FIFO.
    pub const FIFO: u16 = 0x1000;
    /// Character device.
    pub const CHAR_DEVICE: u16 = 0x2000;
    /// Directory.
    pub const DIRECTORY: u16 = 0x4000;
    /// Block device.
    pub const BLOCK_DEVICE: u16 = 0x6000;
    /// Regular file.
    pub const REGULAR: u16 = 0x8000;
    /// Symbolic link.
    pub const SYMLINK: u16 = 0xa000;
    /// Socket.
    pub const SOCKET: u16 = 0xc000;
}

/// An inode to be encoded. Its three other times are the mtime: a layer does
/// not carry them, and a clock would make each build differ.
#[derive(Clone, Debug)]
pub struct Inode {
    /// `i_mode`: type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// All four times.
    pub time: Timestamp,
    /// Links; for a directory with more than 64,998 subdirectories 1.
    pub links: u16,
    /// Blocks it occupies, with extent and attribute blocks.
    pub blocks: u64,
    /// Flags.
    pub flags: InodeFlags,
    /// Extents, a symlink's target or a device number.
    pub block: [u8; 60],
    /// Block of the attributes that do not fit in here, or 0.
    pub xattr_block: u64,
    /// The attributes in here, or nothing.
    pub xattrs: Option<Box<[u8]>>,
    /// For an inode that holds the value of an attribute.
    pub value: Option<AttributeValue>,
}

/// What an inode with an attribute's value says of it, in fields that are times
/// elsewhere (`ext4_xattr_inode_set_ref`, `ext4_xattr_inode_set_hash`).
#[derive(Clone, Copy, Debug)]
pub struct AttributeValue {
    /// Hash of the value.
    pub hash: u32,
    /// How many entries use it.
    pub references: u32,
}

impl Inode {
    /// The inode of number `number` as it lies on disk. `seed` is the file
    /// system's.
    #[must_use]
    pub fn encode(
        &self,
        number: u32,
        block: BlockSize,
        seed: Checksum,
    ) -> [u8; INODE_SIZE as usize] {
        let mut raw = [0; INODE_SIZE as usize];
        let (seconds, extra) = encode_time(self.time);
        // i_blocks counts sectors in 48 bits; above that it counts blocks.
        let sectors = self.blocks << (block.bits() - 9);
        let (i_blocks, flags) = if sectors < 1 << 48 {
            (sectors, self.flags)
        } else {
            (self.blocks, self.flags | InodeFlags::HUGE_FILE)
        };
        put_u16(&mut raw, 0x00, self.mode); // i_mode
        put_u16(&mut raw, 0x02, low16(self.uid)); // i_uid
        put_u32(&mut raw, 0x04, low32(self.size)); // i_size_lo
        put_u32(&mut raw, 0x08, seconds); // i_atime
        put_u32(&mut raw, 0x0c, seconds); // i_ctime
        put_u32(&mut raw, 0x10, seconds); // i_mtime
        put_u16(&mut raw, 0x18, low16(self.gid)); // i_gid
        put_u16(&mut raw, 0x1a, self.links); // i_links_count
        put_u32(&mut raw, 0x1c, low32(i_blocks)); // i_blocks_lo
        put_u32(&mut raw, 0x20, flags.bits()); // i_flags
        raw[0x28..0x64].copy_from_slice(&self.block); // i_block
        put_u32(&mut raw, 0x68, low32(self.xattr_block)); // i_file_acl_lo
        put_u32(&mut raw, 0x6c, high32(self.size)); // i_size_high
        put_u16(&mut raw, 0x74, low16(high32(i_blocks))); // l_i_blocks_high
        put_u16(&mut raw, 0x76, low16(high32(self.xattr_block))); // l_i_file_acl_high
        put_u16(&mut raw, 0x78, high16(self.uid)); // l_i_uid_high
        put_u16(&mut raw, 0x7a, high16(self.gid)); // l_i_gid_high
        put_u16(&mut raw, 0x80, EXTRA_ISIZE); // i_extra_isize
        put_u32(&mut raw, 0x84, extra); // i_ctime_extra
        put_u32(&mut raw, 0x88, extra); // i_mtime_extra
        put_u32(&mut raw, 0x8c, extra); // i_atime_extra
        put_u32(&mut raw, 0x90, seconds); // i_crtime
        put_u32(&mut raw, 0x94, extra); // i_crtime_extra
        if let Some(value) = self.value {
            put_u32(&mut raw, 0x08, value.hash); // i_atime
            put_u32(&mut raw, 0x0c, 0); // i_ctime: the upper half of the references
            put_u32(&mut raw, 0x24, value.references); // l_i_version: the lower half
            put_u32(&mut raw, 0x10, 0); // i_mtime: the owner, in an older scheme
            raw[0x84..0x98].fill(0);
        }
        if let Some(xattrs) = &self.xattrs {
            raw[XATTR_OFFSET..XATTR_OFFSET + xattrs.len()].copy_from_slice(xattrs);
        }
        // i_generation is 0. Both halves of i_checksum count as zero.
        let checksum = seed.for_inode(number, 0).bytes(&raw).value();
        put_u16(&mut raw, 0x7c, low16(checksum)); // l_i_checksum_lo
        put_u16(&mut raw, 0x82, high16(checksum)); // i_checksum_hi
        raw
    }
}

/// The time an inode can hold that is nearest to `time`. The kernel zeroes
/// the nanoseconds at both ends (`timestamp_truncate`).
#[must_use]
pub fn clamp_time(time: Timestamp) -> Timestamp {
    let seconds = time.seconds.clamp(MIN_SECONDS, MAX_SECONDS);
    let at_an_end = seconds == MIN_SECONDS || seconds == MAX_SECONDS;
    Timestamp {
        seconds,
        nanoseconds: if at_an_end { 0 } else { time.nanoseconds },
    }
}

/// The 32-bit field and its `_extra` field (`ext4_encode_extra_time`): the
/// field is the low half, read as signed; two bits say how many times 2^32 are
/// to be added; above them are the nanoseconds.
fn encode_time(time: Timestamp) -> (u32, u32) {
    let time = clamp_time(time);
    let low = low32(time.seconds as u64);
    let epoch = (time.seconds - i64::from(low as i32)) >> 32;
    (low, (epoch as u32 & 3) | (time.nanoseconds << 2))
}

/// `i_block` of a symlink that fits.
#[must_use]
pub fn fast_symlink(target: &[u8]) -> [u8; 60] {
    let mut block = [0; 60];
    block[..target.len()].copy_from_slice(target);
    block
}

/// `i_block` of a device node: the old 16-bit form where it fits, else the new
/// one in the second word (`ext4_mknod` by `init_special_inode`,
/// `old_valid_dev`). `None` beyond 12 bits of major and 20 of minor.
#[must_use]
pub fn device_block(device: Device) -> Option<[u8; 60]> {
    let Device { major, minor } = device;
    let mut block = [0; 60];
    if major < 256 && minor < 256 {
        put_u32(&mut block, 0, (major << 8) | minor);
    } else if major < 1 << 12 && minor < 1 << 20 {
        put_u32(
            &mut block,
            4,
            (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12),
        );
    } else {
        return None;
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Documentation/filesystems/ext4/inodes.rst.
    #[test]
    fn epoch_bits_follow_the_kernels_table() {
        let cases = [
            (-1, 0xffff_ffff, 0),
            (MIN_SECONDS, 0x8000_0000, 0),
            (0, 0, 0),
            (0x7fff_ffff, 0x7fff_ffff, 0),
            (0x8000_0000, 0x8000_0000, 1),
            (0x1_0000_0000, 0, 1),
            (0x1_7fff_ffff, 0x7fff_ffff, 1),
            (0x1_8000_0000, 0x8000_0000, 2),
            (0x2_7fff_ffff, 0x7fff_ffff, 2),
            (0x2_8000_0000, 0x8000_0000, 3),
            (MAX_SECONDS, 0x7fff_ffff, 3),
        ];
        for (seconds, low, epoch) in cases {
            let time = Timestamp {
                seconds,
                nanoseconds: 0,
            };
            assert_eq!(encode_time(time), (low, epoch), "{seconds}");
        }
    }

    #[test]
    fn nanoseconds_lie_above_the_epoch() {
        let time = Timestamp {
            seconds: 0x8000_0000,
            nanoseconds: 999_999_999,
        };
        assert_eq!(encode_time(time).1, (999_999_999 << 2) | 1);
    }

    #[test]
    fn ends_of_time_lose_their_nanoseconds() {
        let beyond = Timestamp {
            seconds: MAX_SECONDS + 1,
            nanoseconds: 5,
        };
        assert_eq!(
            clamp_time(beyond),
            Timestamp {
                seconds: MAX_SECONDS,
                nanoseconds: 0
            }
        );
        let before = Timestamp {
            seconds: i64::MIN,
            nanoseconds: 5,
        };
        assert_eq!(
            clamp_time(before),
            Timestamp {
                seconds: MIN_SECONDS,
                nanoseconds: 0
            }
        );
    }

    #[test]
    fn device_numbers_take_the_old_form_where_they_can() {
        let word = |device, at: usize| {
            let block = device_block(device).unwrap();
            u32::from_le_bytes(block[at..at + 4].try_into().unwrap())
        };
        assert_eq!(word(Device { major: 8, minor: 1 }, 0), 0x801);
        assert_eq!(
            word(
                Device {
                    major: 8,
                    minor: 256
                },
                0
            ),
            0
        );
        assert_eq!(
            word(
                Device {
                    major: 8,
                    minor: 256
                },
                4
            ),
            0x10_0800
        );
        assert_eq!(
            word(
                Device {
                    major: 4095,
                    minor: 0xf_ffff
                },
                4
            ),
            0xffff_ffff
        );
        assert!(device_block(Device {
            major: 4096,
            minor: 0
        })
        .is_none());
        assert!(device_block(Device {
            major: 0,
            minor: 1 << 20
        })
        .is_none());
    }
}
