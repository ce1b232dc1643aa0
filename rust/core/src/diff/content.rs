//! Where the bytes of a side's files come from.
//!
//! [`crate::blockio::ContentStore`] gives descriptors, for whoever copies wants
//! the kernel to do it. A file inside an image has none, so what is compared is
//! asked for as bytes.

use std::os::fd::{AsFd, OwnedFd};

use crate::blockio::{read_exact_at, ContentStore, Opened, Opener};
use crate::error::{Error, Result};
use crate::layers::LayerFiles;
use crate::tree::{Content, ContentId, Extent, Tree};

/// Gives access to the bytes of a tree's files. Shared by all threads.
pub trait Contents: Sync {
    /// A reader for one thread. `tree` is the one whose contents will be asked
    /// for.
    fn reader<'a>(&'a self, tree: &'a Tree) -> Box<dyn Reader + 'a>;
}

/// One thread's way to the bytes: of one file at a time.
pub trait Reader {
    /// Goes to a content of `size` bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    fn open(&mut self, content: ContentId, size: u64) -> Result<()>;

    /// What is the same for two files only when they are one (`st_dev`,
    /// `st_ino`).
    fn identity(&self) -> Option<(u64, u64)>;

    /// The first byte at or behind `at` that may be another one than zero; the
    /// size when there is none.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn next_data(&mut self, at: u64) -> Result<u64>;

    /// Fills `out` with the bytes from `at` on, which do not reach beyond the
    /// size.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<()>;

    /// Is done with the file.
    ///
    /// # Errors
    /// When it is not what it was when the tree was made.
    fn close(&mut self) -> Result<()>;
}

impl Contents for LayerFiles {
    fn reader<'a>(&'a self, tree: &'a Tree) -> Box<dyn Reader + 'a> {
        Box::new(LayerReader {
            tree,
            opener: self.opener(tree),
            current: None,
        })
    }
}

/// Reads files of layers.
struct LayerReader<'a> {
    tree: &'a Tree,
    opener: Box<dyn Opener + 'a>,
    current: Option<Current<'a>>,
}

struct Current<'a> {
    content: ContentId,
    size: u64,
    source: Source,
    /// Where it has data, if it has holes.
    data: Option<&'a [Extent]>,
}

enum Source {
    File(OwnedFd),
    Bytes(Box<[u8]>),
}

impl<'a> LayerReader<'a> {
    fn current(&self) -> Result<&Current<'a>> {
        // A fault of the caller's code, and none that hurts.
        self.current.as_ref().ok_or(Error::Interrupted)
    }
}

impl Reader for LayerReader<'_> {
    fn open(&mut self, content: ContentId, size: u64) -> Result<()> {
        let source = match self.opener.open(content)? {
            Opened::File(file) => Source::File(file),
            Opened::Bytes(bytes) => Source::Bytes(bytes.into()),
        };
        let data = match self.tree.content(content) {
            Content::Layer { data, .. } => data.as_deref(),
            _ => None,
        };
        self.current = Some(Current {
            content,
            size,
            source,
            data,
        });
        Ok(())
    }

    fn identity(&self) -> Option<(u64, u64)> {
        match &self.current.as_ref()?.source {
            Source::File(file) => {
                let stat = rustix::fs::fstat(file).ok()?;
                Some((stat.st_dev, stat.st_ino))
            }
            Source::Bytes(_) => None,
        }
    }

    fn next_data(&mut self, at: u64) -> Result<u64> {
        let current = self.current()?;
        let Some(map) = current.data else {
            return Ok(at);
        };
        let next = map.partition_point(|part| part.start + part.len <= at);
        Ok(map
            .get(next)
            .map_or(current.size, |part| part.start.max(at)))
    }

    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<()> {
        let current = self.current()?;
        match &current.source {
            Source::File(file) => read_exact_at(file.as_fd(), out, at).map_err(|fault| {
                fault.into_error(current.size, || self.opener.path(current.content))
            }),
            Source::Bytes(bytes) => {
                let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
                let bytes = rest.and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(bytes.ok_or(Error::Interrupted)?);
                Ok(())
            }
        }
    }

    fn close(&mut self) -> Result<()> {
        match self.current.take() {
            Some(Current {
                content,
                size,
                source: Source::File(file),
                ..
            }) => self.opener.still_same(content, size, &file),
            _ => Ok(()),
        }
    }
}
