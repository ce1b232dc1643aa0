//! What the scan found: every name of every layer.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::chain::Chain;
use super::entry::{Entry, Flags};
use super::unreadable::Unreadables;
use super::walk::{Above, Lineage};
use crate::tree::{NameRef, Names, XattrSet, XattrSets};

/// Names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryId {
    /// Whose shelf it lies on.
    pub(super) shelf: u32,
    /// Where on it.
    pub(super) index: u32,
}

/// The entries that one thread found.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Directory by directory, sorted by name within one (or within one part
    /// of a large one).
    pub(super) entries: Vec<Entry>,
    /// The entries' names, and the targets of symlinks.
    pub(super) names: Vec<u8>,
    /// Redirects by the index of their entry, ascending.
    pub(super) redirects: Vec<(u32, Box<[u8]>)>,
}

impl Shelf {
    /// The name of an entry of this shelf.
    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        let start = entry.name as usize;
        &self.names[start..start + usize::from(entry.name_len)]
    }
}

/// A stretch of a shelf.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) shelf: u32,
    pub(super) start: u32,
    pub(super) count: u32,
}

/// A directory of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory {
    /// The layer, base first.
    pub(super) layer: u32,
    /// The directory above, or itself in a layer's root.
    pub(super) parent: u32,
    /// Its name there.
    pub(super) name: NameRef,
    /// Whether a `.wh..wh..opq` lies in it (fuse-overlayfs).
    pub(super) opaque: bool,
}

/// The layers' directories. The first ones are the layers' roots.
#[derive(Debug, Default)]
pub(super) struct Directories {
    all: Vec<Directory>,
    names: Names,
}

impl Directories {
    /// Adds one; `None` above 4 Gi of them or of bytes of names.
    pub(super) fn add(&mut self, layer: u32, parent: Option<u32>, name: &[u8]) -> Option<u32> {
        let number = u32::try_from(self.all.len())
            .ok()
            .filter(|&n| n < u32::MAX)?;
        let name = self.names.add(name)?;
        self.all.push(Directory {
            layer,
            parent: parent.unwrap_or(number),
            name,
            opaque: false,
        });
        Some(number)
    }

    pub(super) fn get(&self, directory: u32) -> &Directory {
        &self.all[directory as usize]
    }

    pub(super) fn get_mut(&mut self, directory: u32) -> &mut Directory {
        &mut self.all[directory as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The host path of `name` in `directory`, for messages.
    pub(super) fn path(&self, chain: &Chain, directory: u32, name: &[u8]) -> PathBuf {
        let mut names = vec![name];
        let mut at = directory;
        let layer = loop {
            match self.above(at) {
                Above::Root(layer) => break layer,
                Above::Inside { parent, name } => {
                    names.push(name);
                    at = parent;
                }
            }
        };
        let mut path = chain.path(layer).to_path_buf();
        path.extend(
            names
                .iter()
                .rev()
                .filter(|name| !name.is_empty())
                .map(|name| OsStr::from_bytes(name)),
        );
        path
    }
}

impl Lineage for Directories {
    fn above(&self, directory: u32) -> Above<'_> {
        let this = self.get(directory);
        if this.parent == directory {
            return Above::Root(this.layer as usize);
        }
        Above::Inside {
            parent: this.parent,
            name: self.names.get(this.name),
        }
    }
}

/// The whole scan.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) shelves: Vec<Shelf>,
    pub(super) directories: Directories,
    /// The layers' roots themselves, base first. They have no name.
    pub(super) roots: Vec<Entry>,
    /// Where each directory's entries lie; of a large one, its first part.
    pub(super) runs: Vec<Run>,
    /// The further parts of large directories, in order.
    pub(super) parts: HashMap<u32, Vec<Run>>,
    pub(super) xattrs: XattrSets,
    /// What cannot be read, by the directory it is (in).
    pub(super) unreadable: HashMap<u32, Unreadables>,
}

impl Scan {
    /// How many entries there are.
    pub(super) fn len(&self) -> u64 {
        self.shelves
            .iter()
            .map(|shelf| shelf.entries.len() as u64)
            .sum()
    }

    /// The entries of a directory, sorted by name.
    pub(super) fn entries(&self, directory: u32) -> impl Iterator<Item = EntryId> + '_ {
        let further = self.parts.get(&directory).map_or(&[][..], Vec::as_slice);
        std::iter::once(&self.runs[directory as usize])
            .chain(further)
            .flat_map(|run| {
                (run.start..run.start + run.count).map(|index| EntryId {
                    shelf: run.shelf,
                    index,
                })
            })
    }

    pub(super) fn entry(&self, id: EntryId) -> &Entry {
        &self.shelves[id.shelf as usize].entries[id.index as usize]
    }

    pub(super) fn entry_mut(&mut self, id: EntryId) -> &mut Entry {
        &mut self.shelves[id.shelf as usize].entries[id.index as usize]
    }

    pub(super) fn name(&self, id: EntryId) -> &[u8] {
        let shelf = &self.shelves[id.shelf as usize];
        shelf.name(&shelf.entries[id.index as usize])
    }

    /// The target of a symlink.
    pub(super) fn target(&self, id: EntryId) -> &[u8] {
        let shelf = &self.shelves[id.shelf as usize];
        let entry = &shelf.entries[id.index as usize];
        let start = entry.name as usize + usize::from(entry.name_len);
        // OK to convert: the scan set the size from the bytes it read.
        let len = usize::try_from(entry.size).unwrap_or(0);
        &shelf.names[start..start + len]
    }

    /// The redirect that an entry bears.
    pub(super) fn redirect(&self, id: EntryId) -> Option<&[u8]> {
        let redirects = &self.shelves[id.shelf as usize].redirects;
        let at = redirects
            .binary_search_by_key(&id.index, |(index, _)| *index)
            .ok()?;
        Some(&redirects[at].1)
    }

    /// Whether a directory's entry hides what is below it.
    pub(super) fn is_opaque(&self, entry: &Entry) -> bool {
        entry.has(Flags::OPAQUE) || self.directories.get(entry.link).opaque
    }

    pub(super) fn xattr_set(&self, entry: &Entry) -> &XattrSet {
        self.xattrs.get(crate::tree::XattrSetId::new(entry.xattrs))
    }

    /// The entry of that name in a directory.
    pub(super) fn find(&self, directory: u32, name: &[u8]) -> Option<EntryId> {
        let further = self.parts.get(&directory).map_or(&[][..], Vec::as_slice);
        std::iter::once(&self.runs[directory as usize])
            .chain(further)
            .find_map(|run| {
                let shelf = &self.shelves[run.shelf as usize];
                let entries = &shelf.entries[run.start as usize..][..run.count as usize];
                let last = entries.last()?;
                // The parts of a directory are in order as well.
                if shelf.name(last).cmp(name) == Ordering::Less {
                    return None;
                }
                let at = entries
                    .binary_search_by(|entry| shelf.name(entry).cmp(name))
                    .ok()?;
                Some(EntryId {
                    shelf: run.shelf,
                    index: run.start + u32::try_from(at).ok()?,
                })
            })
    }
}
