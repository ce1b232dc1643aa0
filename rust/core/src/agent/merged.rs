//! An image that is still a merged tree.

use std::os::fd::{AsFd, OwnedFd};

use super::elf::{self, Bytes};
use super::{Found, Image};
use crate::blockio::{read_exact_at, ContentStore, Opened, Opener, ReadFault};
use crate::error::Result;
use crate::tree::{ContentId, Kind, NodeId, Tree};

/// The tree, and one way to its files' data.
pub(super) struct Merged<'a> {
    tree: &'a Tree,
    opener: Box<dyn Opener + 'a>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(tree: &'a Tree, store: &'a dyn ContentStore) -> Self {
        Self {
            tree,
            opener: store.opener(tree),
        }
    }
}

impl Image for Merged<'_> {
    type File = NodeId;

    fn find(&self, path: &[u8]) -> Option<Found<NodeId>> {
        let file = self.tree.resolve(path)?;
        let inode = self.tree.node(file);
        Some(Found {
            file,
            regular: matches!(inode.kind, Kind::File { .. }),
            permissions: inode.metadata.permissions,
        })
    }

    fn look(&mut self, file: &NodeId) -> Result<elf::Kind> {
        let Kind::File { size, content } = self.tree.node(*file).kind else {
            return Ok(elf::Kind::Neither("is no regular file"));
        };
        let source = match self.opener.open(content)? {
            Opened::File(file) => Source::File(file),
            Opened::Bytes(bytes) => Source::Bytes(bytes.into()),
        };
        let mut reader = Reader {
            image: self,
            content,
            size,
            source,
        };
        let kind = elf::look(&mut reader);
        if let Source::File(file) = reader.source {
            self.opener.still_same(content, size, &file)?;
        }
        kind
    }

    fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let node = self.tree.resolve(directory);
        let entries = node.and_then(|node| self.tree.directory(node));
        let entries = entries.map_or(&[][..], |directory| &directory.entries);
        entries
            .iter()
            .map(|entry| self.tree.name(entry.name).to_vec())
            .collect()
    }
}

enum Source {
    File(OwnedFd),
    Bytes(Box<[u8]>),
}

struct Reader<'a, 'b> {
    image: &'a Merged<'b>,
    content: ContentId,
    size: u64,
    source: Source,
}

impl Bytes for Reader<'_, '_> {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<bool> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Ok(false);
        }
        match &self.source {
            Source::Bytes(bytes) => {
                // OK to convert: within the bytes.
                let start = offset as usize;
                out.copy_from_slice(&bytes[start..start + out.len()]);
                Ok(true)
            }
            Source::File(file) => match read_exact_at(file.as_fd(), out, offset) {
                Ok(()) => Ok(true),
                Err(ReadFault::Short(_)) => Ok(false),
                Err(fault) => {
                    Err(fault.into_error(self.size, || self.image.opener.path(self.content)))
                }
            },
        }
    }
}
