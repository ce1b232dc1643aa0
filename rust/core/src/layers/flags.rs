//! What `chattr` set of a file or directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{ioctl_getflags, IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::tree::InodeFlags;

/// The flags of `name` in `directory`, which is a regular file or a directory.
/// The kernel's overlay shows those of the inode that gives the metadata (so
/// those of a metacopy, not of its data), and of layers that nothing is
/// written to it never reads `overlay.protattr`, in which a container's own
/// layer keeps immutable and append (`ovl_fileattr_get`).
pub(super) fn of_name(directory: BorrowedFd<'_>, name: &CStr) -> Result<InodeFlags, Errno> {
    // Whatever has the name by now, opening it must not hang.
    let how =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    of(rustix::fs::openat(directory, name, how, Mode::empty())?)
}

/// The flags of what is open.
pub(super) fn of(opened: impl AsFd) -> Result<InodeFlags, Errno> {
    let found = match ioctl_getflags(opened) {
        Ok(found) => found,
        // File systems without flags: no such call (NOTTY, NOSYS), or not for
        // this inode.
        Err(Errno::NOTTY | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => IFlags::empty(),
        Err(error) => return Err(error),
    };
    let mut flags = InodeFlags::empty();
    for (theirs, ours) in [
        (IFlags::IMMUTABLE, InodeFlags::IMMUTABLE),
        (IFlags::APPEND, InodeFlags::APPEND),
        (IFlags::NODUMP, InodeFlags::NODUMP),
        (IFlags::NOATIME, InodeFlags::NOATIME),
    ] {
        flags.set(ours, found.contains(theirs));
    }
    Ok(flags)
}
