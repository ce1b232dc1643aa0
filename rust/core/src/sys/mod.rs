//! The few system calls that rustix lacks.

pub mod clone_range;
pub mod write_back;
pub mod xattrat;

use rustix::io;
use rustix::thread::UnshareFlags;

/// Gives the calling thread a working directory of its own, so that a `fchdir`
/// in it moves no other thread. The thread must be one that we started and that
/// ends with its work: there is no way back.
#[allow(unsafe_code)]
pub fn own_working_directory() -> io::Result<()> {
    // SAFETY: only CLONE_FILES can break the invariants of file descriptors
    // (a descriptor of one thread that another cannot use). CLONE_FS splits the
    // working directory, root and umask, which no Rust invariant rests upon.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}
