//! `sync_file_range`: lets the kernel begin to write pages to the disk.

use std::ffi::{c_int, c_uint};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `SYNC_FILE_RANGE_WRITE` of `linux/fs.h`.
const WRITE: c_uint = 2;

extern "C" {
    /// In glibc and in musl.
    fn sync_file_range(fd: c_int, offset: i64, bytes: i64, flags: c_uint) -> c_int;
}

/// Begins to write those bytes of `file` to the disk and does not wait. It is
/// no promise of anything: `fsync` is still needed.
#[allow(unsafe_code)]
pub fn begin_write_back(file: impl AsFd, offset: u64, bytes: u64) -> Result<(), Errno> {
    let (Ok(offset), Ok(bytes)) = (i64::try_from(offset), i64::try_from(bytes)) else {
        return Err(Errno::INVAL);
    };
    // SAFETY: a call by value on an open descriptor; no memory is touched.
    let result = unsafe { sync_file_range(file.as_fd().as_raw_fd(), offset, bytes, WRITE) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
