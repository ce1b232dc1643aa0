//! What is told of a difference.

use crate::tree::{Device, Kind, Timestamp};

/// The type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl Type {
    /// The type of that kind of inode.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Directory(_) => Self::Directory,
            Kind::File { .. } => Self::File,
            Kind::Symlink(_) => Self::Symlink,
            Kind::CharDevice(_) => Self::CharDevice,
            Kind::BlockDevice(_) => Self::BlockDevice,
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
        }
    }

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "file",
            Self::Symlink => "symlink",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }
}

/// The names of one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many there are.
    pub count: u64,
    /// The first paths of them, in the order of their bytes; see
    /// [`Group::SHOWN`].
    pub first: Vec<Vec<u8>>,
}

impl Group {
    /// So many paths of a group are told.
    pub const SHOWN: usize = 8;
}

/// One thing that differs of a name that both trees have: the first tree's
/// value and the second's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Type.
    Type(Type, Type),
    /// The 12 low bits of the mode.
    Mode(u16, u16),
    /// Owner.
    Uid(u32, u32),
    /// Group.
    Gid(u32, u32),
    /// Time of the last change of content.
    Mtime(Timestamp, Timestamp),
    /// Bytes of a regular file. Its content is not compared then.
    Size(u64, u64),
    /// A symlink's target.
    Target(&'a [u8], &'a [u8]),
    /// A device's number.
    Device(Device, Device),
    /// An extended attribute; `None` where there is none of that name.
    Xattr(&'a [u8], [Option<&'a [u8]>; 2]),
    /// Which names are one inode.
    Links([Group; 2]),
    /// Bytes of regular files of the same size.
    Content {
        /// The first one that differs.
        offset: u64,
    },
}

/// What differs at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// One tree alone has the name.
    Only {
        /// Which tree: 0 or 1.
        side: usize,
        /// What it names.
        kind: Type,
        /// The size of a regular file.
        size: Option<u64>,
        /// For a directory: names at all depths below.
        below: u64,
    },
    /// Both have it, and it differs.
    Changed {
        /// In what, at least one thing.
        changes: &'a [Change<'a>],
        /// When it is a directory in one tree alone: names at all depths below.
        below: u64,
    },
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The absolute path; "/" is the root.
    pub path: &'a [u8],
    /// What differs.
    pub found: Found<'a>,
}

/// How many differences were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names that one tree alone has, by tree; of a directory, the names below
    /// it only when they were told.
    pub only: [u64; 2],
    /// Names that both have and that differ.
    pub changed: u64,
}

impl Counts {
    /// Whether there are none.
    #[must_use]
    pub const fn equal(&self) -> bool {
        self.only[0] == 0 && self.only[1] == 0 && self.changed == 0
    }
}
