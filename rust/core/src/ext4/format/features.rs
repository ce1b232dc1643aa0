//! The feature words of the superblock. An image has just those its profile
//! names; what each bit means to old programs decides which word it is in.

use bitflags::bitflags;

bitflags! {
    /// `s_feature_compat`: who does not know them may still write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Compat: u32 {
        /// There is a journal.
        const HAS_JOURNAL = 0x0004;
        /// Inodes may have extended attributes.
        const EXT_ATTR = 0x0008;
        /// Descriptor blocks are reserved for growing online.
        const RESIZE_INODE = 0x0010;
        /// Directories may have a hash tree.
        const DIR_INDEX = 0x0020;
    }

    /// `s_feature_incompat`: who does not know them must not mount.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Incompat: u32 {
        /// Directory entries tell the type.
        const FILETYPE = 0x0002;
        /// Files are mapped by extents.
        const EXTENTS = 0x0040;
        /// Block numbers have 64 bits and descriptors 64 bytes.
        const SIXTY_FOUR_BIT = 0x0080;
        /// Bitmaps and inode tables may lie outside their group.
        const FLEX_BG = 0x0200;
        /// Values of attributes may lie in inodes of their own.
        const EA_INODE = 0x0400;
        /// Hash trees of three levels and directories above 2 GiB.
        const LARGE_DIR = 0x4000;
    }

    /// `s_feature_ro_compat`: who does not know them may only read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RoCompat: u32 {
        /// Backups of the superblock only in groups 0, 1 and powers of 3, 5, 7.
        const SPARSE_SUPER = 0x0001;
        /// Some file is (or may be) larger than 2 GiB.
        const LARGE_FILE = 0x0002;
        /// `i_blocks` may count in blocks and has 48 bits.
        const HUGE_FILE = 0x0008;
        /// Descriptors have a CRC-16 and tell what was never initialised
        /// (`uninit_bg`, `gdt_csum`): what there was before `metadata_csum`.
        const UNINIT_BG = 0x0010;
        /// Directories may have more than 65,000 subdirectories.
        const DIR_NLINK = 0x0020;
        /// Inodes have the fields behind the first 128 bytes.
        const EXTRA_ISIZE = 0x0040;
        /// All metadata has CRC32C checksums.
        const METADATA_CSUM = 0x0400;
    }
}

/// The three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `s_feature_compat`
    pub compat: Compat,
    /// `s_feature_incompat`
    pub incompat: Incompat,
    /// `s_feature_ro_compat`
    pub ro_compat: RoCompat,
}

impl Features {
    /// For kernels of the 3.x series and programs of their time: no 64-bit
    /// block numbers, and checksums of group descriptors only.
    #[must_use]
    pub fn compat() -> Self {
        let mut features = Self::modern();
        features.incompat -= Incompat::SIXTY_FOUR_BIT;
        features.ro_compat -= RoCompat::METADATA_CSUM;
        features.ro_compat |= RoCompat::UNINIT_BG;
        features
    }

    /// For images that nothing is ever written to: no journal, nothing to grow.
    #[must_use]
    pub fn readonly() -> Self {
        let mut features = Self::modern();
        features.compat -= Compat::HAS_JOURNAL | Compat::RESIZE_INODE;
        features
    }

    /// Whether all metadata has checksums.
    #[must_use]
    pub fn has_checksums(&self) -> bool {
        self.ro_compat.contains(RoCompat::METADATA_CSUM)
    }

    /// Bytes of a group descriptor.
    #[must_use]
    pub fn descriptor_size(&self) -> u32 {
        if self.incompat.contains(Incompat::SIXTY_FOUR_BIT) {
            64
        } else {
            32
        }
    }

    /// Those of ext4 as of today that every kernel since 4.x knows.
    #[must_use]
    pub fn modern() -> Self {
        Self {
            compat: Compat::HAS_JOURNAL
                | Compat::EXT_ATTR
                | Compat::RESIZE_INODE
                | Compat::DIR_INDEX,
            incompat: Incompat::FILETYPE
                | Incompat::EXTENTS
                | Incompat::SIXTY_FOUR_BIT
                | Incompat::FLEX_BG,
            ro_compat: RoCompat::SPARSE_SUPER
                | RoCompat::LARGE_FILE
                | RoCompat::HUGE_FILE
                | RoCompat::DIR_NLINK
                | RoCompat::EXTRA_ISIZE
                | RoCompat::METADATA_CSUM,
        }
    }
}
