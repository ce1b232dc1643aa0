//! Inodes (`struct ext4_inode`).

use super::bytes::{hilo, u16_at, u32_at};
use super::checksum::crc32c;

/// `EXT4_BAD_INO`
pub const BAD_INODE: u32 = 1;
/// `EXT4_ROOT_INO`
pub const ROOT_INODE: u32 = 2;
/// `EXT4_USR_QUOTA_INO`
pub const USER_QUOTA_INODE: u32 = 3;
/// `EXT4_GRP_QUOTA_INO`
pub const GROUP_QUOTA_INODE: u32 = 4;
/// `EXT4_BOOT_LOADER_INO`
pub const BOOT_LOADER_INODE: u32 = 5;
/// `EXT4_RESIZE_INO`
pub const RESIZE_INODE: u32 = 7;
/// `EXT4_JOURNAL_INO`
pub const JOURNAL_INODE: u32 = 8;

/// `EXT4_GOOD_OLD_INODE_SIZE`: the part that every inode has.
pub const OLD_SIZE: usize = 128;
/// Where the halves of the checksum are.
const CHECKSUM_LO: usize = 0x7c;
const CHECKSUM_HI: usize = 0x82;

/// The bits of `i_mode` that tell the type.
pub const S_IFMT: u16 = 0o170_000;

/// `i_flags` that say how data lies on the disk, or what kind of file it is.
#[allow(missing_docs, reason = "named as in the kernel, less EXT4_ and _FL")]
pub mod flags {
    pub const IMMUTABLE: u32 = 0x0000_0010;
    pub const APPEND: u32 = 0x0000_0020;
    pub const ENCRYPT: u32 = 0x0000_0800;
    pub const INDEX: u32 = 0x0000_1000;
    pub const IMAGIC: u32 = 0x0000_2000;
    pub const HUGE_FILE: u32 = 0x0004_0000;
    pub const EXTENTS: u32 = 0x0008_0000;
    pub const VERITY: u32 = 0x0010_0000;
    pub const EA_INODE: u32 = 0x0020_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
    pub const CASEFOLD: u32 = 0x4000_0000;
}

/// What `i_mode` says the inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say it themselves")]
pub enum Kind {
    Fifo,
    CharDevice,
    Directory,
    BlockDevice,
    Regular,
    Symlink,
    Socket,
}

impl Kind {
    /// `None` when the bits name no type.
    #[must_use]
    pub const fn of(mode: u16) -> Option<Self> {
        Some(match mode & S_IFMT {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The number that directory records have for it (`EXT4_FT_*`).
    #[must_use]
    pub const fn file_type(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    /// A noun.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regular => "file",
            Self::Directory => "directory",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Fifo => "FIFO",
            Self::Socket => "socket",
            Self::Symlink => "symlink",
        }
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    /// As the 30 bits tell them, which can be more than a second has.
    pub nanos: u32,
}

impl Time {
    /// `ext4_decode_extra_time`: two bits of `extra` make an epoch of 2^32
    /// seconds, the others are nanoseconds.
    fn decode(seconds: u32, extra: u32) -> Self {
        // The 32 bits are signed.
        let signed = i64::from(i32::from_le_bytes(seconds.to_le_bytes()));
        Self {
            seconds: signed + (i64::from(extra & 3) << 32),
            nanos: extra >> 2,
        }
    }
}

/// The fields, by the kernel's names; pairs of halves are joined.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Type and permissions.
    pub i_mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes. The high half counts for all types: what ext2 kept there for
    /// directories (`i_dir_acl`) was never used.
    pub size: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// When it was made; `None` where the inode has no such field.
    pub crtime: Option<Time>,
    /// When it was deleted, or the next one in the list of orphans.
    pub i_dtime: u32,
    /// Names it has.
    pub i_links_count: u16,
    /// 48 bits: units of 512 bytes, or of blocks with [`flags::HUGE_FILE`].
    pub blocks: u64,
    /// See [`flags`].
    pub i_flags: u32,
    /// Low half of `i_version`; of inodes with a value of an attribute, how
    /// often it is referenced (its low half, with `ctime`'s seconds as the high one).
    pub i_version: u32,
    /// High half of `i_version`, where the inode has it.
    pub i_version_hi: u32,
    /// Extent tree, block map, symlink's target, device number or inline data.
    pub i_block: [u8; 60],
    /// For NFS, and part of checksums.
    pub i_generation: u32,
    /// The block of attributes, or 0.
    pub file_acl: u64,
    /// Was the address of a fragment.
    pub i_faddr: u32,
    /// Bytes behind the first 128 that are fields; 0 in inodes of 128 bytes.
    pub i_extra_isize: u16,
    /// Project, where the inode has it.
    pub i_projid: u32,
}

impl Inode {
    /// `raw` is of the file system's inode size, which is at least 128. A field
    /// that lies behind `i_extra_isize` is as if it were 0
    /// (`EXT4_FITS_IN_INODE`).
    #[must_use]
    pub fn decode(raw: &[u8]) -> Option<Self> {
        if raw.len() < OLD_SIZE {
            return None;
        }
        let i_extra_isize = if raw.len() >= OLD_SIZE + 4 {
            u16_at(raw, 0x80)
        } else {
            0
        };
        let end = raw.len().min(OLD_SIZE + usize::from(i_extra_isize));
        let extra = |at: usize| {
            if at + 4 <= end {
                u32_at(raw, at)
            } else {
                0
            }
        };
        let mut i_block = [0; 60];
        i_block.copy_from_slice(&raw[0x28..0x64]);
        Some(Self {
            i_mode: u16_at(raw, 0x00),
            uid: u32::from(u16_at(raw, 0x02)) | u32::from(u16_at(raw, 0x78)) << 16,
            gid: u32::from(u16_at(raw, 0x18)) | u32::from(u16_at(raw, 0x7a)) << 16,
            size: hilo(u32_at(raw, 0x6c), u32_at(raw, 0x04)),
            atime: Time::decode(u32_at(raw, 0x08), extra(0x8c)),
            ctime: Time::decode(u32_at(raw, 0x0c), extra(0x84)),
            mtime: Time::decode(u32_at(raw, 0x10), extra(0x88)),
            crtime: (end >= 0x94).then(|| Time::decode(u32_at(raw, 0x90), extra(0x94))),
            i_dtime: u32_at(raw, 0x14),
            i_links_count: u16_at(raw, 0x1a),
            blocks: hilo(u32::from(u16_at(raw, 0x74)), u32_at(raw, 0x1c)),
            i_flags: u32_at(raw, 0x20),
            i_version: u32_at(raw, 0x24),
            i_version_hi: extra(0x98),
            i_block,
            i_generation: u32_at(raw, 0x64),
            file_acl: hilo(u32::from(u16_at(raw, 0x76)), u32_at(raw, 0x68)),
            i_faddr: u32_at(raw, 0x70),
            i_extra_isize,
            i_projid: extra(0x9c),
        })
    }

    /// `None` when the mode names no type.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::of(self.i_mode)
    }

    /// Is one of [`flags`] set?
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.i_flags & flag != 0
    }

    /// Whether a symlink's target lies in `i_block` (`ext4_inode_is_fast_symlink`
    /// as e2fsck has it): neither mapped by extents nor inline data, and shorter
    /// than `i_block`.
    #[must_use]
    pub fn is_fast_symlink(&self) -> bool {
        self.kind() == Some(Kind::Symlink)
            && !self.has(flags::EXTENTS | flags::INLINE_DATA)
            && self.size < 60
    }

    /// Whether `i_block` maps blocks.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        let kind = matches!(
            self.kind(),
            Some(Kind::Regular | Kind::Directory | Kind::Symlink)
        );
        kind && !self.has(flags::INLINE_DATA) && !self.is_fast_symlink()
    }

    /// Major and minor number of a device (`old_decode_dev`, `new_decode_dev`).
    #[must_use]
    pub fn device(&self) -> (u32, u32) {
        let old = u32_at(&self.i_block, 0);
        if old != 0 {
            return (old >> 8 & 0xff, old & 0xff);
        }
        let new = u32_at(&self.i_block, 4);
        (new >> 8 & 0xfff, (new & 0xff) | (new >> 12 & 0xf_ff00))
    }
}

/// The stored and the computed checksum (`ext4_inode_csum`): over number,
/// generation and the inode with the checksum's halves as zero. The high half
/// exists when `i_extra_isize` reaches behind it.
#[must_use]
pub fn checksums(number: u32, raw: &[u8], seed: u32) -> (u32, u32) {
    let extra = if raw.len() > OLD_SIZE {
        usize::from(u16_at(raw, 0x80))
    } else {
        0
    };
    let has_high = OLD_SIZE + extra >= CHECKSUM_HI + 2 && raw.len() > OLD_SIZE;
    let register = checksum_seed(number, u32_at(raw, 0x64), seed);
    let register = crc32c(register, &raw[..CHECKSUM_LO]);
    let register = crc32c(register, &[0, 0]);
    let low = u32::from(u16_at(raw, CHECKSUM_LO));
    if !has_high {
        let computed = crc32c(register, &raw[CHECKSUM_LO + 2..]);
        return (low, computed & 0xffff);
    }
    let register = crc32c(register, &raw[CHECKSUM_LO + 2..CHECKSUM_HI]);
    let register = crc32c(register, &[0, 0]);
    let computed = crc32c(register, &raw[CHECKSUM_HI + 2..]);
    (low | u32::from(u16_at(raw, CHECKSUM_HI)) << 16, computed)
}

/// What the checksums of an inode's extents and directory blocks start from.
#[must_use]
pub fn checksum_seed(number: u32, generation: u32, seed: u32) -> u32 {
    crc32c(
        crc32c(seed, &number.to_le_bytes()),
        &generation.to_le_bytes(),
    )
}
