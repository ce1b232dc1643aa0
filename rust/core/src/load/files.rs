//! The bytes of the files of an image.

use std::path::{Path, PathBuf};

use super::attributes::{self, Attributes};
use crate::diff::{Contents, Reader};
use crate::error::{Error, Result};
use crate::ext4::read::filesystem::Filesystem;
use crate::ext4::read::inode::{flags, Inode};
use crate::ext4::read::runs::{self, Run};
use crate::ext4::read::{Fault, Read};
use crate::tree::{ContentId, Tree};

/// A file in more pieces than this (64 MiB of memory for each reader) is not
/// read: a hostile block map tells 2^30 of them in some blocks.
const MAX_RUNS: usize = 1 << 21;

/// An opened image.
#[derive(Debug)]
pub(super) struct ImageFiles {
    fs: Filesystem,
    path: PathBuf,
}

impl ImageFiles {
    pub(super) fn new(fs: Filesystem, path: &Path) -> Self {
        Self {
            fs,
            path: path.to_path_buf(),
        }
    }

    fn corrupt(&self, fault: Fault, number: u32) -> Error {
        match fault {
            Fault::Host(error) => error,
            Fault::Nonsense(text) => Error::CorruptImage {
                path: self.path.clone(),
                reason: format!("the bytes of inode {number}: {text}"),
            },
        }
    }
}

impl Contents for ImageFiles {
    fn reader<'a>(&'a self, _tree: &'a Tree) -> Box<dyn Reader + 'a> {
        Box::new(ImageReader {
            files: self,
            number: 0,
            size: 0,
            bytes: Bytes::Inline(Vec::new()),
        })
    }
}

/// Where a file's data is: what is written, ascending.
#[derive(Debug)]
pub(super) struct Map {
    runs: Vec<Run>,
    block_size: u64,
}

impl Map {
    pub(super) fn of(fs: &Filesystem, number: u32, inode: &Inode) -> Read<Self> {
        let mut runs: Vec<Run> = Vec::new();
        runs::visit(fs, number, inode, &mut |run| {
            if run.unwritten {
                return Ok(());
            }
            if let Some(last) = runs.last_mut() {
                if last.logical + last.len == run.logical
                    && last.physical + last.len == run.physical
                {
                    last.len += run.len;
                    return Ok(());
                }
            }
            if runs.len() == MAX_RUNS {
                return Err(Fault::Nonsense(format!(
                    "inode {number} has its data in more than {MAX_RUNS} pieces"
                )));
            }
            runs.push(run);
            Ok(())
        })?;
        Ok(Self {
            runs,
            block_size: fs.geometry.block_size.into(),
        })
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The first run that ends behind the byte `at`.
    fn behind(&self, at: u64) -> usize {
        let block = at / self.block_size;
        self.runs
            .partition_point(|run| run.logical + run.len <= block)
    }

    /// The first byte at or behind `at` that is in a run.
    fn next_data(&self, at: u64) -> Option<u64> {
        let run = self.runs.get(self.behind(at))?;
        Some(run.logical.saturating_mul(self.block_size).max(at))
    }

    /// Fills `out` with the bytes from `at` on.
    pub(super) fn read(&self, fs: &Filesystem, at: u64, out: &mut [u8]) -> Read<()> {
        let end = at + out.len() as u64;
        let mut done = at;
        for run in &self.runs[self.behind(at)..] {
            // Extents' logical blocks have 32 bits, and block maps tell fewer.
            let first = run.logical * self.block_size;
            if first >= end {
                break;
            }
            let start = first.max(done);
            let stop = end.min(first + run.len * self.block_size);
            // OK to convert: within `out`.
            let range = |from: u64, to: u64| (from - at) as usize..(to - at) as usize;
            out[range(done, start)].fill(0);
            let place = fs.geometry.byte(run.physical) + (start - first);
            if !fs.image.read(place, &mut out[range(start, stop)])? {
                return Err(Fault::Nonsense("the image ends before".into()));
            }
            done = stop;
        }
        let rest = (done - at) as usize;
        out[rest..].fill(0);
        Ok(())
    }
}

/// The bytes of inline data.
pub(super) fn inline(inode: &Inode, attributes: &Attributes) -> Option<Vec<u8>> {
    inode.has(flags::INLINE_DATA).then(|| {
        let more = attributes.inline.as_deref().unwrap_or_default();
        [&inode.i_block, more].concat()
    })
}

enum Bytes {
    Inline(Vec<u8>),
    Mapped(Map),
}

struct ImageReader<'a> {
    files: &'a ImageFiles,
    number: u32,
    size: u64,
    bytes: Bytes,
}

impl ImageReader<'_> {
    fn bytes(&self, number: u32, size: u64) -> Read<Bytes> {
        let fs = &self.files.fs;
        let raw = fs.raw_inode(number)?;
        let inode = Inode::decode(&raw)
            .filter(|inode| inode.size == size)
            .ok_or_else(|| Fault::Nonsense("it was written to meanwhile".into()))?;
        if !inode.has(flags::INLINE_DATA) {
            return Ok(Bytes::Mapped(Map::of(fs, number, &inode)?));
        }
        let attributes = attributes::read(fs, number, &inode, &raw)?;
        Ok(Bytes::Inline(
            inline(&inode, &attributes).unwrap_or_default(),
        ))
    }
}

impl Reader for ImageReader<'_> {
    fn open(&mut self, content: ContentId, size: u64) -> Result<()> {
        // OK to convert: ids have 32 bits.
        let number = content.index() as u32;
        self.bytes = self
            .bytes(number, size)
            .map_err(|fault| self.files.corrupt(fault, number))?;
        (self.number, self.size) = (number, size);
        Ok(())
    }

    fn identity(&self) -> Option<(u64, u64)> {
        None
    }

    fn next_data(&mut self, at: u64) -> Result<u64> {
        Ok(match &self.bytes {
            Bytes::Inline(bytes) if at < bytes.len() as u64 => at,
            Bytes::Inline(_) => self.size,
            Bytes::Mapped(map) => map.next_data(at).map_or(self.size, |at| at.min(self.size)),
        })
    }

    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<()> {
        let read = match &self.bytes {
            Bytes::Mapped(map) => map.read(&self.files.fs, at, out),
            Bytes::Inline(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default();
                // Older kernels let such a file grow (truncate) and keep it inline: it ends
                // in zeros (ext4_read_inline_folio).
                let (data, zeros) = out.split_at_mut(rest.len().min(out.len()));
                data.copy_from_slice(&rest[..data.len()]);
                zeros.fill(0);
                Ok(())
            }
        };
        read.map_err(|fault| self.files.corrupt(fault, self.number))
    }

    fn close(&mut self) -> Result<()> {
        self.bytes = Bytes::Inline(Vec::new());
        Ok(())
    }
}
