//! What the merge made of the scan.

use std::collections::HashMap;

use super::entry::{Entry, HIDDEN};
use super::scanned::Scan;
use crate::tree::{ContentId, NodeId};

/// What became of a layer's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// The tree's directory that it is a member of; `None`: it is hidden.
    pub(super) node: Option<NodeId>,
    /// Whether no layer below has a member of the same directory.
    pub(super) first: bool,
    /// Names that it and the members below it hold, without whiteouts.
    pub(super) names: u32,
    /// Their bytes.
    pub(super) bytes: u32,
}

impl Fate {
    /// A member of `node` with nothing in it.
    pub(super) const fn new(node: Option<NodeId>) -> Self {
        Self {
            node,
            first: true,
            names: 0,
            bytes: 0,
        }
    }
}

/// What became of all of them, and what else the merge has to tell.
#[derive(Debug)]
pub(super) struct Fates {
    directories: Vec<Option<Fate>>,
    /// Where redirects show one directory more than once: the further places.
    also: HashMap<u32, Vec<Fate>>,
    /// The inodes with more than one name.
    pub(super) links: Links,
    /// The visible files that seem to have holes, with their sizes.
    pub(super) sparse: Vec<(ContentId, u64)>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

impl Fates {
    pub(super) fn new(scan: &Scan) -> Self {
        Self {
            directories: vec![None; scan.directories.len()],
            also: HashMap::new(),
            links: Links::default(),
            sparse: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Tells one. What shows somewhere is not hidden elsewhere.
    pub(super) fn set(&mut self, directory: u32, fate: Fate) {
        let known = &mut self.directories[directory as usize];
        match known {
            Some(Fate { node: Some(_), .. }) => {
                if fate.node.is_some() {
                    self.also.entry(directory).or_default().push(fate);
                }
            }
            Some(_) if fate.node.is_none() => {}
            _ => *known = Some(fate),
        }
    }

    /// All fates of a directory: one, but for redirects.
    pub(super) fn of(&self, directory: u32) -> impl Iterator<Item = &Fate> {
        let also = self.also.get(&directory).map_or(&[][..], Vec::as_slice);
        self.directories[directory as usize].iter().chain(also)
    }
}

/// The inodes with more than one name, by their real identity: the kernel's
/// merged view shows one inode for them, also across layers.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<(u16, u64), Link>);

#[derive(Clone, Copy, Debug)]
struct Link {
    node: u32,
    placed: bool,
}

impl Links {
    const fn key(entry: &Entry) -> (u16, u64) {
        (entry.device, entry.inode)
    }

    /// The node made for another name of this inode.
    pub(super) fn known(&self, entry: &Entry) -> Option<u32> {
        self.0.get(&Self::key(entry)).map(|link| link.node)
    }

    /// Keeps the node made for this inode.
    pub(super) fn show(&mut self, entry: &Entry, node: u32) {
        let link = Link {
            node,
            placed: false,
        };
        self.0.insert(Self::key(entry), link);
    }

    /// To be called for every name in placement order: the first time for an
    /// inode it gives its node, or [`HIDDEN`] when no name of it shows.
    pub(super) fn place(&mut self, entry: &Entry) -> Option<u32> {
        let link = self.0.entry(Self::key(entry)).or_insert(Link {
            node: HIDDEN,
            placed: false,
        });
        let first = !link.placed;
        link.placed = true;
        first.then_some(link.node)
    }
}
