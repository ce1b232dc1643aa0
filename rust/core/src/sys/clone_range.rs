//! `FICLONERANGE`: two files share a range of blocks.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter};

/// `struct file_clone_range` of `linux/fs.h`.
#[repr(C)]
struct FileCloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}

const FICLONERANGE: Opcode = opcode::write::<FileCloneRange>(0x94, 13);

/// Makes `length` bytes of `output` from `output_offset` on share the blocks of
/// `source` from `source_offset` on. All three must be whole blocks of the file
/// systems (`EINVAL` else).
#[allow(unsafe_code)]
pub fn clone_range(
    source: impl AsFd,
    source_offset: u64,
    length: u64,
    output: impl AsFd,
    output_offset: u64,
) -> Result<(), Errno> {
    let range = FileCloneRange {
        src_fd: i64::from(source.as_fd().as_raw_fd()),
        src_offset: source_offset,
        src_length: length,
        dest_offset: output_offset,
    };
    // SAFETY: the opcode is that of FICLONERANGE, which reads one
    // `file_clone_range`; the struct has its layout and outlives the call, and
    // the descriptor in it is open for as long.
    unsafe { ioctl(output, Setter::<FICLONERANGE, FileCloneRange>::new(range)) }
}
