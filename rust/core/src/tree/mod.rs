//! The merged tree: what a kernel overlay mount of the chain would show.
//!
//! A [`Tree`] is a plain value. It does no I/O and knows neither overlayfs nor
//! ext4: [`crate::layers`] makes it, [`inject`] adds files to it, and
//! [`crate::ext4::plan`] places it.
//!
//! Inodes lie in an arena and are named by [`NodeId`]. Names are bytes, in one
//! arena of their own, so that an entry costs 12 bytes and its name.

mod content;
mod counts;
mod digest;
pub mod inject;
mod links;
mod names;
mod node;
mod resolve;
mod xattrs;

pub use content::{Content, ContentId, Extent, HoleMap, Identity, SourceDir, SourceDirId};
pub use counts::Counts;
pub use names::{NameRef, Names};
pub use node::{
    Device, Directory, DirectoryId, Entry, InodeFlags, Kind, Metadata, Node, NodeId, Timestamp,
};
pub use xattrs::{Xattr, XattrSet, XattrSetId, XattrSets};

use crate::error::{Error, Result};

/// One step of the order in which numbers and data are given out: layer by
/// layer, base first, by path within a layer. Because what a higher layer
/// hides keeps its place as a [`Slot::Ghost`], two trees with the same base
/// have the same slots for that base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A visible inode that is no directory, in the layer that provides it
    /// (a hard-linked one at its first name).
    Node(NodeId),
    /// A visible directory, once for each layer it is merged from. It is
    /// numbered at its first slot; its entries are placed at its last one
    /// ([`Directory::last_slot`]), for no later layer touches them.
    Directory {
        /// The directory.
        node: NodeId,
        /// How many names the layers up to this one hold for it.
        names: u32,
        /// The sum of those names' lengths in bytes.
        bytes: u32,
    },
    /// Something that a higher layer hides. Nothing of it is in the image.
    Ghost {
        /// Whether an inode is hidden (not so for a lower version of a
        /// directory that was numbered further down already).
        inode: bool,
        /// Bytes of content the hidden file or symlink has; 0 for other types,
        /// and for a file with holes, for those are placed behind all others.
        size: u64,
    },
    /// A directory that a higher layer hides, once for each layer it would
    /// have been merged from; the counts are those of [`Slot::Directory`].
    GhostDirectory {
        /// Whether this is its first slot, where it would get its number.
        inode: bool,
        /// How many names the layers up to this one hold for it.
        names: u32,
        /// The sum of those names' lengths in bytes.
        bytes: u32,
    },
}

/// The merged tree. See the module's head.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    directories: Vec<Directory>,
    names: Names,
    xattrs: XattrSets,
    contents: Vec<Content>,
    sources: Vec<SourceDir>,
    slots: Vec<Slot>,
}

impl Tree {
    /// A tree of one empty root directory. It has no slot for the root yet:
    /// whoever fills the tree pushes slots in placement order.
    #[must_use]
    pub fn new(root: Metadata) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            directories: Vec::new(),
            names: Names::default(),
            xattrs: XattrSets::default(),
            contents: Vec::new(),
            sources: Vec::new(),
            slots: Vec::new(),
        };
        // OK to ignore: the first directory cannot exceed any limit.
        let _ = tree.add_directory(root);
        tree
    }

    /// The root directory.
    #[must_use]
    pub const fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    /// How many inodes the arena holds, with those that lost all their names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is always a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All inodes with their ids, in arena order. Those with no link left
    /// ([`Node::links`] 0) are not part of the image.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0u32..).map(NodeId::new).zip(&self.nodes)
    }

    /// The inode of that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The inode of that id, to change it.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// The directory behind `id`, or `None` when it is of another type.
    #[must_use]
    pub fn directory(&self, id: NodeId) -> Option<&Directory> {
        match self.node(id).kind {
            Kind::Directory(dir) => Some(&self.directories[dir.index()]),
            _ => None,
        }
    }

    fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match self.nodes[id.index()].kind {
            Kind::Directory(dir) => Some(&mut self.directories[dir.index()]),
            _ => None,
        }
    }

    /// The bytes of a name.
    #[must_use]
    pub fn name(&self, name: NameRef) -> &[u8] {
        self.names.get(name)
    }

    /// The extended attributes of that set.
    #[must_use]
    pub fn xattrs(&self, id: XattrSetId) -> &XattrSet {
        self.xattrs.get(id)
    }

    /// All sets of extended attributes; equal sets are one.
    #[must_use]
    pub fn xattr_sets(&self) -> &XattrSets {
        &self.xattrs
    }

    /// Where a file's bytes are.
    #[must_use]
    pub fn content(&self, id: ContentId) -> &Content {
        &self.contents[id.index()]
    }

    /// Where a file's bytes are, to change it.
    pub fn content_mut(&mut self, id: ContentId) -> &mut Content {
        &mut self.contents[id.index()]
    }

    /// The layers' directories that provide files.
    #[must_use]
    pub fn source(&self, id: SourceDirId) -> &SourceDir {
        &self.sources[id.index()]
    }

    /// The order in which numbers and data are given out.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The entry of that name in a directory.
    #[must_use]
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let entries = &self.directory(directory)?.entries;
        let at = entries
            .binary_search_by(|entry| self.name(entry.name).cmp(name))
            .ok()?;
        Some(entries[at].node)
    }

    /// Adds an empty directory with no name yet.
    pub fn add_directory(&mut self, metadata: Metadata) -> Result<NodeId> {
        let dir = DirectoryId::new(to_u32(self.directories.len())?);
        let id = self.add_node(Node {
            kind: Kind::Directory(dir),
            metadata,
            links: 0,
        })?;
        self.directories.push(Directory {
            entries: Vec::new(),
            parent: NodeId::ROOT,
            last_slot: u32::MAX,
        });
        Ok(id)
    }

    /// Adds an inode that is no directory, with no name yet.
    pub fn add_node(&mut self, node: Node) -> Result<NodeId> {
        let id = NodeId::new(to_u32(self.nodes.len())?);
        self.nodes.push(node);
        Ok(id)
    }

    /// Keeps a name (or a symlink's target).
    pub fn add_name(&mut self, name: &[u8]) -> Result<NameRef> {
        self.names.add(name).ok_or_else(too_large)
    }

    /// Keeps a set of extended attributes, sorted by name; an equal one that
    /// is there already serves.
    pub fn add_xattrs(&mut self, set: XattrSet) -> Result<XattrSetId> {
        self.xattrs.intern(set).ok_or_else(too_large)
    }

    /// Keeps where a file's bytes are.
    pub fn add_content(&mut self, content: Content) -> Result<ContentId> {
        let id = ContentId::new(to_u32(self.contents.len())?);
        self.contents.push(content);
        Ok(id)
    }

    /// Keeps a layer's directory that provides files.
    pub fn add_source(&mut self, source: SourceDir) -> Result<SourceDirId> {
        let id = SourceDirId::new(to_u32(self.sources.len())?);
        self.sources.push(source);
        Ok(id)
    }

    /// Gives `directory` all its entries at once and tells them their parent.
    /// Entries may come in any order; names must differ. Each counts as a link
    /// of its inode.
    ///
    /// # Panics
    /// When `directory` is no directory: a fault of the caller's code.
    pub fn set_entries(&mut self, directory: NodeId, mut entries: Vec<Entry>) {
        let names = &self.names;
        entries.sort_unstable_by(|a, b| names.get(a.name).cmp(names.get(b.name)));
        debug_assert!(entries
            .windows(2)
            .all(|pair| names.get(pair[0].name) != names.get(pair[1].name)));
        entries.shrink_to_fit();
        for entry in &entries {
            self.nodes[entry.node.index()].links += 1;
            if let Some(child) = self.directory_mut(entry.node) {
                child.parent = directory;
            }
        }
        self.directory_mut(directory).expect("a directory").entries = entries;
    }

    /// Adds one name to a directory, in its place; what had that name before
    /// loses it (and all below it, when it was a directory).
    ///
    /// # Panics
    /// When `directory` is no directory: a fault of the caller's code.
    pub fn link(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        let name = self.add_name(name)?;
        let names = &self.names;
        let entries = &self.directory(directory).expect("a directory").entries;
        let place = entries.binary_search_by(|entry| names.get(entry.name).cmp(names.get(name)));
        let entry = Entry { name, node };
        self.node_mut(node).links += 1;
        if let Some(child) = self.directory_mut(node) {
            child.parent = directory;
        }
        let entries = &mut self.directory_mut(directory).expect("a directory").entries;
        match place {
            Ok(at) => {
                let old = std::mem::replace(&mut entries[at], entry);
                self.drop_link(old.node);
            }
            Err(at) => entries.insert(at, entry),
        }
        Ok(())
    }

    fn drop_link(&mut self, node: NodeId) {
        let mut pending = vec![node];
        while let Some(id) = pending.pop() {
            let node = self.node_mut(id);
            node.links -= 1;
            if node.links == 0 {
                if let Some(dir) = self.directory_mut(id) {
                    let entries = std::mem::take(&mut dir.entries);
                    pending.extend(entries.iter().map(|entry| entry.node));
                }
            }
        }
    }

    /// Appends to the placement order. A [`Slot::Directory`] becomes the last
    /// slot of its directory.
    pub fn push_slot(&mut self, slot: Slot) -> Result<()> {
        let at = to_u32(self.slots.len())?;
        if let Slot::Directory { node, .. } = slot {
            if let Some(dir) = self.directory_mut(node) {
                dir.last_slot = at;
            }
        }
        self.slots.push(slot);
        Ok(())
    }

    /// A path of the inode for messages: that of its first name in the order of
    /// the arena, lossily decoded. It may look through the whole tree once: not
    /// for loops.
    #[must_use]
    pub fn display_path(&self, wanted: NodeId) -> String {
        if wanted == NodeId::ROOT {
            return "/".into();
        }
        let name_in = |directory: &Directory, node: NodeId| {
            let entry = directory.entries.iter().find(|entry| entry.node == node)?;
            Some(String::from_utf8_lossy(self.name(entry.name)).into_owned())
        };
        // Directories know what holds them; others are searched for.
        let found = match self.directory(wanted) {
            Some(directory) => {
                let holder = self.directory(directory.parent);
                holder.and_then(|holder| Some((directory.parent, name_in(holder, wanted)?)))
            }
            None => self
                .nodes()
                .find_map(|(id, _)| Some((id, name_in(self.directory(id)?, wanted)?))),
        };
        let Some((mut above, name)) = found else {
            return format!("(inode {} without a name)", wanted.index());
        };
        let mut parts = vec![name];
        while above != NodeId::ROOT {
            let Some(directory) = self.directory(above) else {
                break;
            };
            let holder = self.directory(directory.parent);
            parts.extend(holder.and_then(|holder| name_in(holder, above)));
            above = directory.parent;
        }
        parts.reverse();
        format!("/{}", parts.join("/"))
    }
}

fn to_u32(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(|_| too_large())
}

fn too_large() -> Error {
    Error::Unrepresentable {
        path: "/".into(),
        reason: "the tree has more than 4,294,967,295 inodes, or more than 4 GiB of names; \
                 ext4 numbers inodes with 32 bits"
            .into(),
    }
}
