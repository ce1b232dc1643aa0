//! The digest of a file's data.
//!
//! Data is divided into chunks of 1 MiB. A file of one chunk has that chunk's
//! digest. A longer file has the digest of its list of chunks, each with its
//! number, without those that hold only zeros, and of its size: so a hole need
//! not be read, makes no difference from written zeros, and the chunks of a large
//! file are worked on by all threads.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Digest;
use crate::blockio::{next_data, read_exact_at, ContentStore, NextData, Opened, Opener};
use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::sized::demand_empty;
use crate::tree::{Content, ContentId, Extent, Tree};
use crate::workers;

/// Bytes of a chunk.
const CHUNK: u64 = 1 << 20;
/// A thread takes work for so many bytes at a time.
const PORTION: u64 = 4 << 20;
/// But not more files than this.
const PORTION_FILES: usize = 128;

const CHUNK_CONTEXT: &str = "layermelt 2026-11 file data chunk";
const LIST_CONTEXT: &str = "layermelt 2026-11 file data chunk list";

/// A file whose data is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) content: ContentId,
    pub(super) size: u64,
    /// Where it holds data, when it has holes.
    pub(super) data: Option<&'a [Extent]>,
}

impl Wanted<'_> {
    /// The first chunk from that one on which may hold data; behind the last
    /// one, if there is none.
    fn next_data(&self, chunk: u64) -> u64 {
        let Some(map) = self.data else { return chunk };
        let next = map.partition_point(|part| part.start + part.len <= chunk * CHUNK);
        let start = map.get(next).map_or(self.size, |part| part.start);
        if start < self.size {
            chunk.max(start / CHUNK)
        } else {
            self.size.div_ceil(CHUNK)
        }
    }
}

/// Hashes a chunk, or says that it holds only zeros.
struct ChunkHasher {
    template: blake3::Hasher,
}

impl ChunkHasher {
    fn new() -> Self {
        Self {
            template: blake3::Hasher::new_derive_key(CHUNK_CONTEXT),
        }
    }

    fn hash(&self, data: &[u8]) -> Digest {
        *self.template.clone().update(data).finalize().as_bytes()
    }
}

fn is_zero(data: &[u8]) -> bool {
    // Most data says no in the first few bytes; the rest is a vector loop.
    data.first().is_none_or(|&first| first == 0) && data.iter().all(|&byte| byte == 0)
}

/// The digest of a file of more than one chunk.
fn list_digest(size: u64, chunks: impl Iterator<Item = (u64, Digest)>) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(LIST_CONTEXT);
    for (number, digest) in chunks {
        hasher.update(&number.to_le_bytes());
        hasher.update(&digest);
    }
    hasher.update(&size.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// A stretch of work: whole files, or chunks of one large file.
enum Portion {
    Files(std::ops::Range<usize>),
    Chunks {
        file: usize,
        /// None when only a hole is left.
        chunks: std::ops::Range<u64>,
        /// Bytes of the hole before them.
        skipped: u64,
    },
}

/// Divides the work, in order.
struct Queue<'a> {
    files: &'a [Wanted<'a>],
    next: usize,
    /// Chunks of `files[next]` that were given out.
    chunk: u64,
}

impl Queue<'_> {
    fn take(&mut self) -> Option<Portion> {
        let file = self.files.get(self.next)?;
        if file.size > CHUNK {
            let all = file.size.div_ceil(CHUNK);
            // A hole may be of more chunks than anybody can count through.
            let start = file.next_data(self.chunk);
            let skipped = file.size.min(start * CHUNK) - self.chunk * CHUNK;
            let end = all.min(start + PORTION / CHUNK);
            let file = self.next;
            (self.next, self.chunk) = if end == all {
                (file + 1, 0)
            } else {
                (file, end)
            };
            return Some(Portion::Chunks {
                file,
                chunks: start..end,
                skipped,
            });
        }
        let start = self.next;
        let mut bytes = 0;
        while let Some(file) = self.files.get(self.next) {
            let full = bytes >= PORTION || self.next - start >= PORTION_FILES;
            if file.size > CHUNK || full {
                break;
            }
            bytes += file.size;
            self.next += 1;
        }
        Some(Portion::Files(start..self.next))
    }
}

/// What one thread found.
#[derive(Default)]
struct Found {
    whole: Vec<(usize, Digest)>,
    chunks: Vec<(usize, u64, Digest)>,
}

/// The digests of `files`, in their order.
pub(super) fn digests(
    tree: &Tree,
    store: &dyn ContentStore,
    files: &[Wanted<'_>],
    threads: usize,
    control: &Control,
) -> Result<Vec<Digest>> {
    let queue = Mutex::new(Queue {
        files,
        next: 0,
        chunk: 0,
    });
    let found = workers::run(threads, |failed| {
        let mut worker = Worker {
            files,
            opener: store.opener(tree),
            hasher: ChunkHasher::new(),
            buffer: Vec::new(),
            found: Found::default(),
            control,
        };
        while !failed.load(Ordering::Relaxed) {
            control.check()?;
            let portion = queue.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(portion) = portion else { break };
            worker.work(portion)?;
        }
        Ok(worker.found)
    })?;

    let mut digests = vec![[0; 32]; files.len()];
    let mut chunks: BTreeMap<usize, Vec<(u64, Digest)>> = BTreeMap::new();
    for found in found {
        for (file, digest) in found.whole {
            digests[file] = digest;
        }
        for (file, number, digest) in found.chunks {
            chunks.entry(file).or_default().push((number, digest));
        }
    }
    for (index, file) in files
        .iter()
        .enumerate()
        .filter(|(_, file)| file.size > CHUNK)
    {
        let mut list = chunks.remove(&index).unwrap_or_default();
        list.sort_unstable_by_key(|&(number, _)| number);
        digests[index] = list_digest(file.size, list.into_iter());
    }
    Ok(digests)
}

struct Worker<'a> {
    files: &'a [Wanted<'a>],
    opener: Box<dyn Opener + 'a>,
    hasher: ChunkHasher,
    buffer: Vec<u8>,
    found: Found,
    control: &'a Control,
}

impl Worker<'_> {
    fn work(&mut self, portion: Portion) -> Result<()> {
        match portion {
            Portion::Files(range) => {
                for index in range {
                    let size = self.files[index].size;
                    let digest = self.with_file(index, |worker, opened| {
                        worker.read(opened, index, 0, size)?;
                        Ok(worker.hasher.hash(&worker.buffer))
                    })?;
                    self.found.whole.push((index, digest));
                    self.control.advance(size);
                }
                Ok(())
            }
            Portion::Chunks {
                file,
                chunks,
                skipped,
            } => {
                let Wanted { size, data, .. } = self.files[file];
                self.control.advance(skipped);
                self.with_file(file, |worker, opened| {
                    for number in chunks {
                        let start = number * CHUNK;
                        let len = CHUNK.min(size - start);
                        worker.control.check()?;
                        worker.control.advance(len);
                        if data.is_some_and(|data| is_hole(data, start, len)) {
                            continue;
                        }
                        worker.read(opened, file, start, len)?;
                        if !is_zero(&worker.buffer) {
                            let digest = worker.hasher.hash(&worker.buffer);
                            worker.found.chunks.push((file, number, digest));
                        }
                    }
                    Ok(())
                })
            }
        }
    }

    /// Opens a file, lets `work` read it, and sees that it is still the same.
    fn with_file<T>(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Self, &Source) -> Result<T>,
    ) -> Result<T> {
        let Wanted { content, size, .. } = self.files[index];
        let source = match self.opener.open(content)? {
            Opened::File(file) => Source::File(file),
            Opened::Bytes(bytes) => Source::Bytes(bytes.into()),
        };
        let result = work(self, &source);
        if let Source::File(file) = &source {
            self.opener.still_same(content, size, file)?;
        }
        result
    }

    fn read(&mut self, source: &Source, index: usize, start: u64, len: u64) -> Result<()> {
        // Not above CHUNK.
        let len = len as usize;
        self.buffer.resize(len, 0);
        match source {
            Source::Bytes(bytes) => {
                let start = start as usize;
                self.buffer.copy_from_slice(&bytes[start..start + len]);
                Ok(())
            }
            Source::File(file) => {
                let Wanted { content, size, .. } = self.files[index];
                let path = || self.opener.path(content);
                read_exact_at(file.as_fd(), &mut self.buffer, start)
                    .map_err(|fault| fault.into_error(size, path))
            }
        }
    }
}

enum Source {
    File(OwnedFd),
    Bytes(Box<[u8]>),
}

/// Whether none of the parts with data touches these bytes.
fn is_hole(map: &[Extent], start: u64, len: u64) -> bool {
    let next = map.partition_point(|part| part.start + part.len <= start);
    map.get(next).is_none_or(|part| part.start >= start + len)
}

/// The digest of one host file's data, which has the form of every file's in
/// [`super::layer_digest`]. Symlinks are followed. Large files are worked on by
/// `threads` threads.
pub fn file_digest(path: &Path, threads: usize, control: &Control) -> Result<Digest> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
    let stat = rustix::fs::fstat(&file).map_err(Error::io("look at", path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let kind = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            Errno::ISDIR
        } else {
            Errno::INVAL
        };
        return Err(Error::io("hash (it is no regular file)", path)(kind));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size == 0 {
        demand_empty(&file, path)?;
    }
    control.begin(Phase::Hash, size);
    let mut tree = empty_tree();
    let content = tree.add_content(Content::Bytes(Box::default()))?;
    let store = OneFile { file: &file, path };
    let map = data_map(&file, size).map_err(Error::io("find the holes of", path))?;
    let wanted = Wanted {
        content,
        size,
        data: map.as_deref(),
    };
    let found = digests(&tree, &store, &[wanted], threads, control)?;
    let now = rustix::fs::fstat(&file).map_err(Error::io("look at", path))?;
    if (now.st_size, now.st_mtime, now.st_mtime_nsec)
        != (stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
    {
        return Err(Error::LayerChanged {
            path: path.to_path_buf(),
            reason: "it was written to while it was hashed".into(),
        });
    }
    Ok(found[0])
}

fn empty_tree() -> Tree {
    Tree::new(crate::tree::Metadata {
        mtime: crate::tree::Timestamp::default(),
        uid: 0,
        gid: 0,
        permissions: 0,
        xattrs: crate::tree::XattrSetId::EMPTY,
        flags: crate::tree::InodeFlags::empty(),
    })
}

/// Where a file holds data; `None` when its file system cannot tell.
fn data_map(file: &OwnedFd, size: u64) -> Result<Option<Vec<Extent>>, Errno> {
    let mut map = Vec::new();
    let mut at = 0;
    while at < size {
        match next_data(file, at, size)? {
            NextData::Part(start, end) => {
                map.push(Extent {
                    start,
                    len: end - start,
                });
                at = end;
            }
            NextData::Nothing => break,
            NextData::Unknown => return Ok(None),
        }
    }
    Ok(Some(map))
}

/// Gives out one open file, whatever content is asked for.
struct OneFile<'a> {
    file: &'a OwnedFd,
    path: &'a Path,
}

impl ContentStore for OneFile<'_> {
    fn opener<'a>(&'a self, _tree: &'a Tree) -> Box<dyn Opener + 'a> {
        Box::new(OneFile {
            file: self.file,
            path: self.path,
        })
    }
}

impl Opener for OneFile<'_> {
    fn open(&mut self, _content: ContentId) -> Result<Opened<'_>> {
        let again = self
            .file
            .try_clone()
            .map_err(Error::io("open", self.path))?;
        Ok(Opened::File(again))
    }

    fn still_same(&self, _content: ContentId, _size: u64, _file: &OwnedFd) -> Result<()> {
        Ok(())
    }

    fn path(&self, _content: ContentId) -> std::path::PathBuf {
        self.path.to_path_buf()
    }
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
