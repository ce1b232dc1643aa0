//! Trees made in memory, their images, and the judge: `e2fsck -fn`.
#![allow(missing_docs, unreachable_pub, dead_code)]

pub mod trees;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use layermelt_core::blockio::{ContentStore, Opened, Opener};
use layermelt_core::control::Control;
use layermelt_core::ext4::plan::{ImageOptions, Plan};
use layermelt_core::ext4::write::{fill_region, write_image, WriteOptions, Written};
use layermelt_core::tree::{
    Content, ContentId, Entry, InodeFlags, Kind, Metadata, Node, NodeId, Slot, Timestamp, Tree,
    Xattr, XattrSetId,
};
use layermelt_core::Result;

/// Gives out contents that lie in memory.
pub struct InMemory;

struct InMemoryOpener<'a>(&'a Tree);

impl ContentStore for InMemory {
    fn opener<'a>(&'a self, tree: &'a Tree) -> Box<dyn Opener + 'a> {
        Box::new(InMemoryOpener(tree))
    }
}

impl Opener for InMemoryOpener<'_> {
    fn open(&mut self, content: ContentId) -> Result<Opened<'_>> {
        match self.0.content(content) {
            Content::Bytes(bytes) => Ok(Opened::Bytes(bytes)),
            other => panic!("not in memory: {other:?}"),
        }
    }

    fn still_same(&self, _content: ContentId, _size: u64, _file: &OwnedFd) -> Result<()> {
        Ok(())
    }

    fn path(&self, _content: ContentId) -> PathBuf {
        PathBuf::from("(memory)")
    }
}

pub fn metadata(permissions: u16) -> Metadata {
    Metadata {
        mtime: Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 123_456_789,
        },
        uid: 1000,
        gid: 100_000,
        permissions,
        xattrs: XattrSetId::EMPTY,
        flags: InodeFlags::empty(),
    }
}

/// Builds a tree directory by directory, children first.
pub struct Maker {
    pub tree: Tree,
}

impl Default for Maker {
    fn default() -> Self {
        Self {
            tree: Tree::new(metadata(0o755)),
        }
    }
}

impl Maker {
    pub fn node(&mut self, kind: Kind) -> NodeId {
        self.tree
            .add_node(Node {
                kind,
                metadata: metadata(0o644),
                links: 0,
            })
            .unwrap()
    }

    pub fn file(&mut self, bytes: Vec<u8>) -> NodeId {
        let size = bytes.len() as u64;
        let content = self.tree.add_content(Content::Bytes(bytes.into())).unwrap();
        self.node(Kind::File { size, content })
    }

    pub fn symlink(&mut self, target: &[u8]) -> NodeId {
        let target = self.tree.add_name(target).unwrap();
        self.node(Kind::Symlink(target))
    }

    pub fn xattrs(&mut self, node: NodeId, set: &[(&[u8], &[u8])]) {
        let set = set
            .iter()
            .map(|(name, value)| Xattr {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect();
        let id = self.tree.add_xattrs(set).unwrap();
        self.tree.node_mut(node).metadata.xattrs = id;
    }

    pub fn directory(&mut self, entries: &[(&[u8], NodeId)]) -> NodeId {
        let id = self.tree.add_directory(metadata(0o755)).unwrap();
        self.fill(id, entries);
        id
    }

    pub fn fill(&mut self, directory: NodeId, entries: &[(&[u8], NodeId)]) {
        let entries = entries
            .iter()
            .map(|&(name, node)| Entry {
                name: self.tree.add_name(name).unwrap(),
                node,
            })
            .collect();
        self.tree.set_entries(directory, entries);
    }

    /// Fills the root and pushes the slots of a single layer.
    pub fn finish(mut self, root: &[(&[u8], NodeId)]) -> Tree {
        self.fill(NodeId::ROOT, root);
        let mut pending = vec![NodeId::ROOT];
        let mut seen = std::collections::HashSet::new();
        while let Some(node) = pending.pop() {
            let entries = self.tree.directory(node).unwrap().entries.clone();
            let bytes = entries.iter().map(|entry| entry.name.len() as u32).sum();
            let names = entries.len() as u32;
            self.tree
                .push_slot(Slot::Directory { node, names, bytes })
                .unwrap();
            for entry in entries {
                if self.tree.directory(entry.node).is_some() {
                    pending.push(entry.node);
                } else if seen.insert(entry.node) {
                    self.tree.push_slot(Slot::Node(entry.node)).unwrap();
                }
            }
        }
        self.tree
    }
}

/// A file that is gone when it is dropped.
pub struct Image(pub PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub fn build(tree: &Tree, options: &ImageOptions, threads: usize) -> Result<Image> {
    Ok(build_at(tree, options, threads, &InMemory)?.0)
}

pub fn build_at(
    tree: &Tree,
    options: &ImageOptions,
    threads: usize,
    store: &dyn ContentStore,
) -> Result<(Image, Written)> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("layermelt-{}-{number}.ext4", std::process::id()));
    let plan = Plan::new(tree, options)?;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let image = Image(path);
    let how = WriteOptions {
        threads,
        write_back: false,
    };
    let written = write_image(&plan, store, &file, &image.0, how, &Control::default())?;
    assert_eq!(written.bytes, plan.bytes_to_write());
    Ok((image, written))
}

/// The image as the plan's regions tell it.
pub fn told(tree: &Tree, options: &ImageOptions) -> Vec<u8> {
    let plan = Plan::new(tree, options).unwrap();
    let mut opener = InMemory.opener(tree);
    let mut bytes = vec![0; plan.image_bytes() as usize];
    let mut end = 0;
    for region in plan.regions() {
        assert!(
            region.start >= end,
            "regions ascend: {region:?} behind {end}"
        );
        end = region.end();
        let at = region.offset() as usize;
        let out = &mut bytes[at..at + region.bytes() as usize];
        fill_region(&plan, &mut *opener, &region, out).unwrap();
    }
    bytes
}

/// `e2fsck -fn` must have nothing to say: exit 0, and only the lines of its
/// passes and its closing line.
pub fn judge(image: &Path) {
    let output = Command::new("e2fsck")
        .args(["-fn"])
        .arg(image)
        .output()
        .expect("e2fsck");
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("Pass ") && !line.contains(" files ("))
        .collect::<Vec<_>>();
    assert!(
        output.status.success() && complaint.is_empty(),
        "e2fsck: {text}"
    );
}

/// What `debugfs -R request` prints.
pub fn debugfs(image: &Path, request: &str) -> String {
    let output = Command::new("debugfs")
        .args(["-R", request])
        .arg(image)
        .output()
        .expect("debugfs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
