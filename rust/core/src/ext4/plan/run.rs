//! What lies where, as a list in the order of the blocks.

/// What the blocks of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    /// A file's data. The owner is a node.
    Data,
    /// The target of a symlink too long for its inode. The owner is a node.
    Symlink,
    /// A directory's entries. The owner is a node.
    Directory,
    /// Nodes of an extent tree. The owner is a node.
    ExtentTree,
    /// Attributes. The owner is an index into the plan's attribute blocks.
    Xattrs,
    /// The value of an attribute. The owner is its id.
    Value,
    /// `lost+found`.
    LostAndFound,
    /// The double indirect block of the inode that keeps descriptors.
    Resize,
    /// The journal. Only its first block is written.
    Journal,
    /// Nodes of the journal's extent tree.
    JournalTree,
}

/// Blocks side by side with one owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First block in the image.
    pub(crate) start: u64,
    /// First block within what the owner has of that kind.
    pub(crate) logical: u32,
    /// How many: at most [`crate::ext4::format::extent::MAX_EXTENT_BLOCKS`].
    pub(crate) len: u32,
    /// Whose they are, see [`What`].
    pub(crate) owner: u32,
    /// What they are.
    pub(crate) what: What,
}

impl Run {
    /// The block behind the last one.
    #[must_use]
    pub(crate) fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}
