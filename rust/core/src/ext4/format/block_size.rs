//! The size of a block, and what follows from it alone.

use super::INODE_SIZE;

/// Bytes of a block: 1,024, 2,048 or 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize(u32);

impl BlockSize {
    /// 4,096 bytes: a page of most machines, and the default.
    pub const PAGE: Self = Self(4096);

    /// `None` for what no image can have. Larger blocks than a page are not
    /// mounted by most kernels.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        match bytes {
            1024 | 2048 | 4096 => Some(Self(bytes)),
            _ => None,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// Bytes of a block in memory.
    #[must_use]
    pub const fn size(self) -> usize {
        self.0 as usize
    }

    /// log2 of the bytes.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0.trailing_zeros()
    }

    /// Blocks that hold so many bytes.
    #[must_use]
    pub const fn blocks_of(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.0 as u64)
    }

    /// Bytes of so many blocks.
    #[must_use]
    pub const fn bytes_of(self, blocks: u64) -> u64 {
        blocks * self.0 as u64
    }

    /// A block bitmap is one block: a group has as many blocks as that has
    /// bits.
    #[must_use]
    pub const fn blocks_per_group(self) -> u32 {
        self.0 * 8
    }

    /// The most inodes of a group: their bitmap is one block as well.
    #[must_use]
    pub const fn max_inodes_per_group(self) -> u32 {
        self.0 * 8
    }

    /// Inodes in one block of an inode table.
    #[must_use]
    pub const fn inodes_per_block(self) -> u32 {
        self.0 / INODE_SIZE
    }

    /// The first block of group 0 (`s_first_data_block`): the superblock lies
    /// at byte 1,024, and so in block 1 of the smallest blocks.
    #[must_use]
    pub const fn first_block(self) -> u32 {
        if self.0 == 1024 {
            1
        } else {
            0
        }
    }

    /// Block numbers in one block.
    #[must_use]
    pub const fn pointers(self) -> u32 {
        self.0 / 4
    }

    /// log2 of the groups that keep their bitmaps and tables together: 16 as
    /// mke2fs has it with blocks of 4,096 bytes, and as much less as groups
    /// have fewer blocks, so that the largest tables of a flex group always
    /// fill just one group.
    #[must_use]
    pub const fn log_groups_per_flex(self) -> u32 {
        self.bits() - 8
    }

    /// See [`Self::log_groups_per_flex`].
    #[must_use]
    pub const fn groups_per_flex(self) -> u32 {
        1 << self.log_groups_per_flex()
    }
}
