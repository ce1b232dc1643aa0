//! Makes the merged tree from the scan.
//!
//! One merged directory after the other, from a stack of work: no recursion,
//! whatever the depth. The entries of all layers' directories merged into one
//! are brought together by name; for each name the hits, top layer first, are
//! cut into runs by what stops the kernel's search. The first run is what
//! shows. Further runs are hidden, but are merged among each other just as they
//! would show if the layers above were not there: [`super::place`] keeps their
//! places.

use super::chain::Chain;
use super::entry::{Entry, Flags, Type, HIDDEN};
use super::fates::{Fate, Fates};
use super::lookup::{self, Corrupt, Hit, Resolved};
use super::scanned::Scan;
use super::unreadable::Unreadables;
use super::MergeOptions;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tree::{
    self, Content, Identity, Kind, Metadata, NameRef, Node, NodeId, SourceDir, SourceDirId, Tree,
    XattrSetId,
};

/// A directory may show at many places by redirects, its redirects again, and
/// so on: 128 layers of two redirects each make 2^128 directories. No kernel
/// ever wrote more than one redirect to a directory, so a tree of many times
/// what is there is an attack.
const MOST_FOLD: u64 = 16;
/// ... but small ones do no harm.
const MOST_FREE: u64 = 100_000;

/// Merges the scanned layers. Returns the tree without slots, and what became
/// of every directory of the scan.
pub(super) fn merge(
    chain: &Chain,
    scan: &mut Scan,
    options: MergeOptions,
    control: &Control,
) -> Result<(Tree, Fates)> {
    let roots: Vec<u32> = scan.roots.iter().rev().map(|root| root.link).collect();
    let top = scan.roots[scan.roots.len() - 1];
    let mut merger = Merger {
        chain,
        options,
        tree: Tree::new(metadata(&top, XattrSetId::EMPTY)),
        fates: Fates::new(scan),
        roots,
        xattrs: vec![None; scan.xattrs.len()],
        sources: vec![None; scan.directories.len()],
        unreadable: Unreadables::default(),
        pending: Vec::new(),
        members: Vec::new(),
        seen: 0,
        most: scan
            .len()
            .saturating_mul(MOST_FOLD)
            .saturating_add(MOST_FREE),
    };
    merger.root(scan)?;
    let merged = merger.run(scan, control);
    // What was not seen may be why the merge failed.
    merger.unreadable.into_result()?;
    merged?;
    Ok((merger.tree, merger.fates))
}

struct Merger<'a> {
    chain: &'a Chain,
    options: MergeOptions,
    tree: Tree,
    fates: Fates,
    /// The layers' roots, top first.
    roots: Vec<u32>,
    /// The scan's sets of attributes in the tree.
    xattrs: Vec<Option<XattrSetId>>,
    /// The scan's directories in the tree.
    sources: Vec<Option<SourceDirId>>,
    unreadable: Unreadables,
    /// A stack of directories to merge, the next one last.
    pending: Vec<Pending>,
    /// Their members: each has a stretch of this, the next one the last.
    members: Vec<u32>,
    seen: u64,
    most: u64,
}

/// A directory to merge.
#[derive(Clone, Copy)]
struct Pending {
    /// The tree's directory, or `None` for a hidden one.
    node: Option<NodeId>,
    /// How many layers' directories it has; they are in `Merger::members`,
    /// top first.
    members: usize,
}

/// Room that is used again for each directory.
#[derive(Default)]
struct Room {
    members: Vec<u32>,
    hits: Vec<Hit>,
    entries: Vec<tree::Entry>,
    /// The sub-directories, with their members in `below_members`.
    below: Vec<Pending>,
    below_members: Vec<u32>,
}

fn metadata(entry: &Entry, xattrs: XattrSetId) -> Metadata {
    Metadata {
        mtime: entry.mtime(),
        uid: entry.uid,
        gid: entry.gid,
        permissions: entry.mode & 0o7777,
        xattrs,
        flags: entry.inode_flags,
    }
}

impl Merger<'_> {
    /// The root: all layers' roots, whatever their marks. The kernel takes
    /// them from the mount options and looks none of them up.
    fn root(&mut self, scan: &Scan) -> Result<()> {
        let top = scan.roots[scan.roots.len() - 1];
        let root = self.tree.root();
        self.tree.node_mut(root).metadata.xattrs = self.xattrs(scan, &top)?;
        for (layer, root) in scan.roots.iter().enumerate().skip(1) {
            if scan.is_opaque(root) {
                self.fates.warnings.push(format!(
                    "{}: the layer's root is marked opaque, which the kernel ignores and so do we: \
                     files of the layers below show",
                    self.chain.path(layer).display()
                ));
            }
        }
        self.members.extend_from_slice(&self.roots);
        self.pending.push(Pending {
            node: Some(root),
            members: self.roots.len(),
        });
        Ok(())
    }

    fn run(&mut self, scan: &mut Scan, control: &Control) -> Result<()> {
        let mut room = Room::default();
        while let Some(pending) = self.pending.pop() {
            control.check()?;
            let rest = self.members.len() - pending.members;
            room.members.clear();
            room.members.extend(self.members.drain(rest..));
            self.directory(scan, pending.node, &mut room)?;
            control.advance(room.hits.len() as u64);
        }
        Ok(())
    }

    fn directory(&mut self, scan: &mut Scan, node: Option<NodeId>, room: &mut Room) -> Result<()> {
        self.gather(scan, node, room)?;
        room.entries.clear();
        room.below.clear();
        room.below_members.clear();
        let mut rest = 0;
        while rest < room.hits.len() {
            let same = {
                let name = scan.name(room.hits[rest].entry);
                let hits = &room.hits[rest..];
                hits.iter()
                    .take_while(|hit| scan.name(hit.entry) == name)
                    .count()
            };
            self.name(scan, node, rest..rest + same, room)?;
            rest += same;
        }
        if let Some(node) = node {
            self.tree.set_entries(node, room.entries.clone());
        }
        // The last pushed is the next taken: first names first.
        let mut end = room.below_members.len();
        for below in room.below.iter().rev() {
            let start = end - below.members;
            self.members
                .extend_from_slice(&room.below_members[start..end]);
            self.pending.push(*below);
            end = start;
        }
        Ok(())
    }

    /// Brings the entries of all members together, sorted by name and, for one
    /// name, top layer first; counts what each member adds.
    fn gather(&mut self, scan: &Scan, node: Option<NodeId>, room: &mut Room) -> Result<()> {
        room.hits.clear();
        let mut fates = Vec::with_capacity(room.members.len());
        for &directory in &room.members {
            if let (Some(_), Some(some)) = (node, scan.unreadable.get(&directory)) {
                self.unreadable.absorb(some);
            }
            let mut fate = Fate::new(node);
            for entry in scan.entries(directory) {
                let this = scan.entry(entry);
                if !this.has(Flags::WHITEOUT) {
                    fate.names = fate.names.saturating_add(1);
                    fate.bytes = fate.bytes.saturating_add(this.name_len.into());
                }
                room.hits.push(Hit { directory, entry });
            }
            fates.push(fate);
        }
        let mut below = Fate::new(node);
        for (at, (&directory, mut fate)) in room.members.iter().zip(fates).enumerate().rev() {
            fate.first = at + 1 == room.members.len();
            fate.names = fate.names.saturating_add(below.names);
            fate.bytes = fate.bytes.saturating_add(below.bytes);
            below = fate;
            self.fates.set(directory, fate);
        }
        if room.members.len() > 1 {
            // Stable, so that higher layers stay first; and it merges what is
            // sorted in itself, as every member is.
            room.hits
                .sort_by(|a, b| scan.name(a.entry).cmp(scan.name(b.entry)));
        }
        self.seen += room.hits.len() as u64;
        if self.seen > self.most {
            return Err(Error::CorruptLayer {
                path: scan.directories.path(self.chain, room.members[0], b""),
                reason: format!(
                    "the redirects of the layers show their {} names more than {MOST_FOLD} times",
                    scan.len()
                ),
            });
        }
        Ok(())
    }

    /// One name: `range` of the hits.
    fn name(
        &mut self,
        scan: &mut Scan,
        node: Option<NodeId>,
        range: std::ops::Range<usize>,
        room: &mut Room,
    ) -> Result<()> {
        let mut at = range.start;
        if node.is_some() {
            let start = room.below_members.len();
            let run = take_run(scan, &room.hits[at..range.end], &mut room.below_members);
            let top = room.hits[at];
            if run.marked {
                room.below_members.truncate(start);
                let name = scan.name(top.entry).to_vec();
                let userxattr = self.options.userxattr;
                let resolved = lookup::lookup(scan, userxattr, &room.members, &self.roots, &name)
                    .map_err(|error| self.corrupt(scan, &error))?;
                match resolved {
                    Resolved::Absent => {}
                    Resolved::Other { top, data } => self.other(scan, top, data, room)?,
                    Resolved::Directory { top, members } => {
                        room.below_members.extend_from_slice(&members);
                        self.show_directory(scan, top, members.len(), room)?;
                    }
                }
            } else if run.directories > 0 {
                self.show_directory(scan, top, run.directories, room)?;
            } else if !scan.entry(top.entry).has(Flags::WHITEOUT) {
                self.other(scan, top, top, room)?;
            }
            at += run.hits;
        }
        while at < range.end {
            let run = take_run(scan, &room.hits[at..range.end], &mut room.below_members);
            if run.directories > 0 {
                room.below.push(Pending {
                    node: None,
                    members: run.directories,
                });
            }
            // What is no directory stays HIDDEN, as the scan made it.
            at += run.hits;
        }
        Ok(())
    }

    fn corrupt(&self, scan: &Scan, error: &Corrupt) -> Error {
        let name = scan.name(error.at.entry);
        Error::CorruptLayer {
            path: scan.directories.path(self.chain, error.at.directory, name),
            reason: error.reason.clone(),
        }
    }

    /// The last `members` of the members below make a directory that shows.
    fn show_directory(
        &mut self,
        scan: &Scan,
        top: Hit,
        members: usize,
        room: &mut Room,
    ) -> Result<()> {
        let entry = scan.entry(top.entry);
        let xattrs = self.xattrs(scan, entry)?;
        let node = self.tree.add_directory(metadata(entry, xattrs))?;
        let name = self.tree.add_name(scan.name(top.entry))?;
        room.entries.push(tree::Entry { name, node });
        room.below.push(Pending {
            node: Some(node),
            members,
        });
        Ok(())
    }

    /// Anything but a directory shows.
    fn other(&mut self, scan: &mut Scan, top: Hit, data: Hit, room: &mut Room) -> Result<()> {
        let name = self.tree.add_name(scan.name(top.entry))?;
        let entry = *scan.entry(top.entry);
        let known = match entry.link {
            HIDDEN if entry.has(Flags::LINKED) => self.fates.links.known(&entry),
            HIDDEN => None,
            node => Some(node),
        };
        let node = match known {
            Some(node) => NodeId::new(node),
            None => {
                let node = self.inode(scan, top, data, name)?;
                if entry.has(Flags::LINKED) {
                    self.fates.links.show(&entry, number(node));
                }
                node
            }
        };
        scan.entry_mut(top.entry).link = number(node);
        room.entries.push(tree::Entry { name, node });
        Ok(())
    }

    fn inode(&mut self, scan: &Scan, top: Hit, data: Hit, name: NameRef) -> Result<NodeId> {
        let entry = scan.entry(top.entry);
        let kind = match entry.kind() {
            Type::File => {
                let from = scan.entry(data.entry);
                if from.has(Flags::UNREADABLE) && from.size > 0 {
                    self.unreadable.add(
                        scan.directories
                            .path(self.chain, data.directory, scan.name(data.entry)),
                        rustix::io::Errno::ACCESS,
                    );
                }
                let same_name = scan.name(data.entry) == self.tree.name(name);
                let content = Content::Layer {
                    directory: self.source(scan, data.directory)?,
                    name: if same_name {
                        name
                    } else {
                        self.tree.add_name(scan.name(data.entry))?
                    },
                    identity: Identity {
                        inode: from.inode,
                        mtime: from.mtime(),
                    },
                    data: None,
                };
                let content = self.tree.add_content(content)?;
                if from.has(Flags::SPARSE) {
                    self.fates.sparse.push((content, from.size));
                }
                Kind::File {
                    size: from.size,
                    content,
                }
            }
            Type::Symlink => Kind::Symlink(self.tree.add_name(scan.target(top.entry))?),
            Type::CharDevice => Kind::CharDevice(entry.rdev()),
            Type::BlockDevice => Kind::BlockDevice(entry.rdev()),
            Type::Fifo => Kind::Fifo,
            // OK to fold: callers show no directory here.
            Type::Socket | Type::Directory => Kind::Socket,
        };
        let xattrs = self.xattrs(scan, entry)?;
        self.tree.add_node(Node {
            kind,
            metadata: metadata(entry, xattrs),
            links: 0,
        })
    }

    /// The attributes of an entry in the tree.
    fn xattrs(&mut self, scan: &Scan, entry: &Entry) -> Result<XattrSetId> {
        let at = entry.xattrs as usize;
        if let Some(known) = self.xattrs[at] {
            return Ok(known);
        }
        let id = self.tree.add_xattrs(scan.xattr_set(entry).clone())?;
        self.xattrs[at] = Some(id);
        Ok(id)
    }

    /// A directory of the scan in the tree, and so all above it.
    fn source(&mut self, scan: &Scan, directory: u32) -> Result<SourceDirId> {
        use super::walk::{Above, Lineage as _};

        let mut missing = Vec::new();
        let mut at = directory;
        let mut known = loop {
            if let Some(id) = self.sources[at as usize] {
                break id;
            }
            match scan.directories.above(at) {
                Above::Root(_) => {
                    let layer = scan.directories.get(at).layer;
                    let id = self.tree.add_source(SourceDir {
                        layer,
                        parent: None,
                    })?;
                    self.sources[at as usize] = Some(id);
                    break id;
                }
                Above::Inside { parent, .. } => {
                    missing.push(at);
                    at = parent;
                }
            }
        };
        for at in missing.into_iter().rev() {
            let Above::Inside { name, .. } = scan.directories.above(at) else {
                continue;
            };
            let name = self.tree.add_name(name)?;
            known = self.tree.add_source(SourceDir {
                layer: scan.directories.get(at).layer,
                parent: Some((known, name)),
            })?;
            self.sources[at as usize] = Some(known);
        }
        Ok(known)
    }
}

/// What the hits of one name begin with.
struct Taken {
    /// How many hits it takes.
    hits: usize,
    /// How many directories are merged; they were added to `members`.
    directories: usize,
    /// Whether a redirect or a metacopy mark was met: then [`lookup`] must
    /// decide, and the hits are those up to the mark.
    marked: bool,
}

/// Takes the first run of `hits`, which are of one name, top layer first.
fn take_run(scan: &Scan, hits: &[Hit], members: &mut Vec<u32>) -> Taken {
    let mut taken = Taken {
        hits: 0,
        directories: 0,
        marked: false,
    };
    for hit in hits {
        let entry = scan.entry(hit.entry);
        if !entry.is_directory() {
            if entry.has(Flags::WHITEOUT) {
                taken.hits += 1;
            } else if taken.directories == 0 {
                taken.hits += 1;
                taken.marked = entry.has(Flags::METACOPY);
            }
            // Under directories it ends the run, and begins the next one.
            break;
        }
        taken.hits += 1;
        taken.directories += 1;
        members.push(entry.link);
        if scan.is_opaque(entry) {
            break;
        }
        if entry.has(Flags::REDIRECT) {
            taken.marked = true;
            break;
        }
    }
    taken
}

fn number(node: NodeId) -> u32 {
    // OK to convert: node ids have 32 bits.
    u32::try_from(node.index()).unwrap_or(HIDDEN)
}
