//! Inodes, directories and their entries.

use bitflags::bitflags;

use super::content::ContentId;
use super::names::NameRef;
use super::xattrs::XattrSetId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// The id of the arena's element `index`.
            #[must_use]
            pub const fn new(index: u32) -> Self {
                Self(index)
            }

            /// The element's place in its arena.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}
pub(super) use id;

id! {
    /// Names an inode of a [`super::Tree`].
    NodeId
}
id! {
    /// Names a directory's entries.
    DirectoryId
}

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self::new(0);
}

/// A point in time as a layer's file system told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z, negative before.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forward from `seconds`.
    pub nanoseconds: u32,
}

bitflags! {
    /// What `chattr` sets on regular files and directories. They are the
    /// file's own, not the file system's: those that say how a file is kept
    /// (compressed, extents, verity) are not among them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InodeFlags: u8 {
        /// Nothing of it may be changed.
        const IMMUTABLE = 1 << 0;
        /// It may only be appended to.
        const APPEND = 1 << 1;
        /// `dump` leaves it out.
        const NODUMP = 1 << 2;
        /// Reading does not move its atime.
        const NOATIME = 1 << 3;
    }
}

/// What every inode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Last change of content.
    pub mtime: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The 12 low bits of `st_mode`: permissions, setuid, setgid, sticky.
    pub permissions: u16,
    /// Extended attributes, as the merged view shows them.
    pub xattrs: XattrSetId,
    /// Flags, where they were asked for.
    pub flags: InodeFlags,
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The type of an inode, with what only that type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory(DirectoryId),
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Where its bytes are.
        content: ContentId,
    },
    /// A symbolic link and its target, 1 to 4,095 bytes.
    Symlink(NameRef),
    /// A character device. (Never 0:0: that is a whiteout.)
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A FIFO.
    Fifo,
    /// A socket's name.
    Socket,
}

/// An inode.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Type.
    pub kind: Kind,
    /// Owner, permissions, times, attributes.
    pub metadata: Metadata,
    /// Visible names (for a directory 1, for the root 0); never those of "."
    /// and "..".
    pub links: u32,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// 1 to 255 bytes without NUL and '/'.
    pub name: NameRef,
    /// What it names.
    pub node: NodeId,
}

/// A directory's content.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Sorted by the names' bytes.
    pub entries: Vec<Entry>,
    /// The directory that holds it; the root's is the root.
    pub parent: NodeId,
    /// Index of its last slot in [`super::Tree::slots`]; `u32::MAX` before it
    /// has one.
    pub last_slot: u32,
}
