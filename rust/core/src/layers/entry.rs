//! What the scan keeps of one name of one layer. There may be a million of
//! them, so they are small.

use bitflags::bitflags;

use crate::tree::{Device, InodeFlags, Timestamp};

bitflags! {
    /// What the merge must know of an entry beyond its inode.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Flags: u8 {
        /// Hides the name in the layers below.
        const WHITEOUT = 1 << 0;
        /// A directory that hides the layers below it.
        const OPAQUE = 1 << 1;
        /// Has a redirect, kept beside the entries.
        const REDIRECT = 1 << 2;
        /// A regular file whose data is in a layer below.
        const METACOPY = 1 << 3;
        /// With `METACOPY`: its mark has no valid form.
        const METACOPY_BAD = 1 << 4;
        /// A regular file with fewer blocks than its size asks for.
        const SPARSE = 1 << 5;
        /// The inode has more than one name.
        const LINKED = 1 << 6;
        /// A regular file that may not be read.
        const UNREADABLE = 1 << 7;
    }
}

/// The type of an entry, by `S_IFMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Directory,
    File,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl Type {
    /// The type bits of `st_mode`, or `None` when they name no type of Linux.
    pub(super) const fn of(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o100_000 => Self::File,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }
}

/// [`Entry::link`] of an entry that the merge has not shown (yet).
pub(super) const HIDDEN: u32 = u32::MAX;

/// One name of one directory of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// `st_ino`.
    pub(super) inode: u64,
    /// `st_size`; for a symlink the length of its target, for a device its
    /// number (major in the upper half).
    pub(super) size: u64,
    /// `st_mtime`.
    pub(super) seconds: i64,
    /// Its nanoseconds.
    pub(super) nanoseconds: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Where its name begins in the names of its shelf. The target of a
    /// symlink follows the name.
    pub(super) name: u32,
    /// Its extended attributes as the merged view shows them, in the scan's
    /// own numbering.
    pub(super) xattrs: u32,
    /// A directory's number; for others the node that the merge made of it,
    /// or [`HIDDEN`].
    pub(super) link: u32,
    /// `st_mode`.
    pub(super) mode: u16,
    /// `st_dev`, as an index.
    pub(super) device: u16,
    /// Length of the name.
    pub(super) name_len: u8,
    /// See [`Flags`].
    pub(super) flags: Flags,
    /// What `chattr` set, where it was asked for.
    pub(super) inode_flags: InodeFlags,
}

// A million entries of this size stay far below the 300 bytes an inode that a
// build may take.
const _: () = assert!(size_of::<Entry>() == 56);

impl Entry {
    /// Its type.
    pub(super) fn kind(&self) -> Type {
        // OK to default: the scan refuses other modes.
        Type::of(self.mode.into()).unwrap_or(Type::File)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == Type::Directory
    }

    pub(super) fn has(&self, flag: Flags) -> bool {
        self.flags.contains(flag)
    }

    /// For a device node.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(super) const fn rdev(&self) -> Device {
        Device {
            major: (self.size >> 32) as u32,
            minor: self.size as u32,
        }
    }

    pub(super) const fn mtime(&self) -> Timestamp {
        Timestamp {
            seconds: self.seconds,
            nanoseconds: self.nanoseconds,
        }
    }
}
