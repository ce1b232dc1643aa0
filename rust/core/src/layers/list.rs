//! The names of one directory.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;
use rustix::io;

/// Room for one `getdents64`.
pub(super) type Buffer = Box<[MaybeUninit<u8>]>;

/// A new buffer, large enough that a directory rarely takes two calls.
pub(super) fn buffer() -> Buffer {
    vec![MaybeUninit::uninit(); 64 << 10].into_boxed_slice()
}

/// Names, sorted by their bytes once [`Listing::sort`] was called.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The names, each ended by a NUL.
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a name begins, and its length without the NUL.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: usize,
}

impl Listing {
    /// Reads all names of `directory` but "." and "..". `pause` is called
    /// between system calls; what it returns as an error ends the reading.
    pub(super) fn read<E: From<io::Errno>>(
        &mut self,
        directory: BorrowedFd<'_>,
        buffer: &mut [MaybeUninit<u8>],
        mut pause: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        self.bytes.clear();
        self.spans.clear();
        let mut entries = RawDir::new(directory, buffer);
        loop {
            if entries.is_buffer_empty() {
                pause()?;
            }
            let Some(entry) = entries.next() else {
                return Ok(());
            };
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            self.spans.push(Span {
                start: self.bytes.len(),
                len: name.len() - 1,
            });
            self.bytes.extend_from_slice(name);
        }
    }

    /// Sorts the names: whatever order the file system has, ours is the same.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans.sort_unstable_by(|a, b| {
            bytes[a.start..a.start + a.len].cmp(&bytes[b.start..b.start + b.len])
        });
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The name at `index`.
    pub(super) fn name(&self, index: usize) -> &CStr {
        let span = self.spans[index];
        // OK to expect: every name was put in with its NUL and holds no other.
        CStr::from_bytes_with_nul(&self.bytes[span.start..=span.start + span.len])
            .expect("a NUL at the end")
    }

    /// Whether a sorted listing holds `name`.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        let bytes = &self.bytes;
        self.spans
            .binary_search_by(|span| bytes[span.start..span.start + span.len].cmp(name))
            .is_ok()
    }
}
