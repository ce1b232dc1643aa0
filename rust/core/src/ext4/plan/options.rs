//! What the user may wish of an image.

/// How large the image is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// What the tree needs and [`ImageOptions::free_space`].
    #[default]
    Auto,
    /// The least number of blocks that holds the tree.
    Min,
    /// So many bytes.
    Bytes(u64),
}

/// Which readers an image is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Linux 4.x and newer.
    #[default]
    Default,
    /// Linux 3.x and programs of its time: no 64-bit block numbers, checksums
    /// of group descriptors only.
    Compat,
    /// For images that nothing is ever written to (shared, under verity): no
    /// journal, nothing free, nothing to grow. Its size is the least.
    Readonly,
}

/// How large the journal is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JournalSize {
    /// As mke2fs sizes it.
    #[default]
    Auto,
    /// There is none.
    None,
    /// So many bytes.
    Bytes(u64),
}

/// What the user may wish of an image. [`Default`] is the profile `default`.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Readers.
    pub profile: Profile,
    /// Size.
    pub size: Size,
    /// Journal.
    pub journal: JournalSize,
    /// Bytes that only root may fill.
    pub reserved: u64,
    /// Bytes that are to be free at the least with [`Size::Auto`].
    pub free_space: u64,
    /// Inodes there are to be at the least, or one for each 16 KiB.
    pub inodes: Option<u64>,
    /// Bytes of a block: 1,024, 2,048 or 4,096.
    pub block_size: u32,
    /// Label, at most 16 bytes.
    pub label: Vec<u8>,
    /// UUID, or one derived from the tree.
    pub uuid: Option<[u8; 16]>,
    /// Seconds since 1970 for the superblock (`SOURCE_DATE_EPOCH`), or the
    /// newest mtime in the tree.
    pub timestamp: Option<i64>,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            profile: Profile::Default,
            size: Size::Auto,
            journal: JournalSize::Auto,
            reserved: 0,
            free_space: 256 << 20,
            inodes: None,
            block_size: 4096,
            label: Vec::new(),
            uuid: None,
            timestamp: None,
        }
    }
}
