//! `listxattrat` and `getxattrat`: extended attributes of a name in a
//! directory given by descriptor. Linux 6.13 and newer.

use std::ffi::{c_int, c_long, CStr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// System call numbers. Calls newer than Linux 5.1 have the same number on all
/// architectures but Alpha and MIPS, for which rustc has no tier with `std`
/// that we build for.
const SYS_GETXATTRAT: c_long = 464;
const SYS_LISTXATTRAT: c_long = 465;

/// `AT_SYMLINK_NOFOLLOW` of `linux/fcntl.h`.
const AT_SYMLINK_NOFOLLOW: c_int = 0x100;

extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// `struct xattr_args` of `linux/xattr.h`.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Lists the attributes of `name` in `directory`, symlinks not followed; the
/// names lie in `list`, each ended by a NUL. Returns how many bytes they take.
/// `ERANGE` when they are more than `list` holds.
#[allow(unsafe_code)]
pub fn listxattrat(
    directory: BorrowedFd<'_>,
    name: &CStr,
    list: &mut [u8],
) -> Result<usize, Errno> {
    // SAFETY: the kernel reads the NUL-ended `name` and writes at most
    // `list.len()` bytes to `list`; both outlive the call. An unknown number
    // gives ENOSYS. The variadic arguments have the widths that the kernel
    // reads from registers.
    let result = unsafe {
        syscall(
            SYS_LISTXATTRAT,
            c_long::from(directory.as_raw_fd()),
            name.as_ptr(),
            c_long::from(AT_SYMLINK_NOFOLLOW),
            list.as_mut_ptr(),
            list.len(),
        )
    };
    length(result)
}

/// Reads the attribute `attribute` of `name` in `directory`, symlinks not
/// followed, into `value`. Returns its length. `ERANGE` when `value` is too
/// short for it.
#[allow(unsafe_code)]
pub fn getxattrat(
    directory: BorrowedFd<'_>,
    name: &CStr,
    attribute: &CStr,
    value: &mut [u8],
) -> Result<usize, Errno> {
    let mut args = XattrArgs {
        value: value.as_mut_ptr() as usize as u64,
        size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: the kernel reads both NUL-ended names and `args`, whose `value`
    // points to at least `size` writable bytes; all outlive the call.
    let result = unsafe {
        syscall(
            SYS_GETXATTRAT,
            c_long::from(directory.as_raw_fd()),
            name.as_ptr(),
            c_long::from(AT_SYMLINK_NOFOLLOW),
            attribute.as_ptr(),
            &raw mut args,
            size_of::<XattrArgs>(),
        )
    };
    length(result)
}

fn length(result: c_long) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        // OK to default: `syscall` has just set errno.
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
    })
}
