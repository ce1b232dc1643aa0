//! Extended attributes: what of each set goes into the inodes, and the blocks
//! that inodes with equal sets share.

use std::collections::HashMap;

use super::validate::larger;
use crate::error::{Error, Result};
use crate::ext4::format::xattr::{pack, Entry, Packed, ValueId, XattrFault, REFCOUNT_MAX};
use crate::ext4::format::BlockSize;
use crate::tree::{Kind, NodeId, Tree, XattrSetId};

/// A block of attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XattrBlock {
    /// The set whose entries it holds.
    pub(crate) set: XattrSetId,
    /// How many inodes use it.
    pub(crate) references: u32,
    /// Where it lies.
    pub(crate) block: u64,
}

/// A value in an inode of its own. Equal ones are one.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// It.
    pub(crate) bytes: Box<[u8]>,
    /// How many entries use it.
    pub(crate) references: u32,
}

/// All sets as ext4 keeps them.
#[derive(Debug)]
pub(crate) struct Attributes {
    block_size: BlockSize,
    packed: Vec<Packed>,
    values: Vec<Value>,
    value_ids: HashMap<Box<[u8]>, ValueId>,
    blocks: Vec<XattrBlock>,
    /// The block that inodes of a set share now.
    open: HashMap<XattrSetId, u32>,
    of_node: HashMap<NodeId, u32>,
    /// The first inode with a value that lies in an inode of its own.
    outside: Option<NodeId>,
}

impl Attributes {
    /// Packs every set that a visible inode has. Sentences about attributes
    /// that were left out are added to `warnings`.
    pub(crate) fn new(
        tree: &Tree,
        block_size: BlockSize,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut attributes = Self {
            block_size,
            packed: Vec::new(),
            values: Vec::new(),
            value_ids: HashMap::new(),
            blocks: Vec::new(),
            open: HashMap::new(),
            of_node: HashMap::new(),
            outside: None,
        };
        let mut packed = vec![None; tree.xattr_sets().len()];
        let mut on_links = vec![false; packed.len()];
        for (_, node) in tree.nodes() {
            let set = node.metadata.xattrs;
            on_links[set.index()] |= matches!(node.kind, Kind::Symlink(_));
        }
        for (id, node) in tree.nodes() {
            let set = node.metadata.xattrs;
            if packed[set.index()].is_some() || (node.links == 0 && id != tree.root()) {
                continue;
            }
            let mut parts = attributes.pack(tree, id, set, warnings)?;
            // An inode is charged for values that lie outside, and for e2fsck
            // 1.47.0 a symlink that is charged but has no attribute block has
            // its target in blocks (ext2fs_inode_has_valid_blocks2).
            if on_links[set.index()] && parts.in_block.is_empty() {
                parts.outside_to_block();
            }
            if attributes.outside.is_none() && !attributes.values.is_empty() {
                attributes.outside = Some(id);
            }
            packed[set.index()] = Some(parts);
        }
        attributes.packed = packed.into_iter().map(Option::unwrap_or_default).collect();
        Ok(attributes)
    }

    fn pack(
        &mut self,
        tree: &Tree,
        node: NodeId,
        set: XattrSetId,
        warnings: &mut Vec<String>,
    ) -> Result<Packed> {
        let entries = translate(tree, node, set, self.block_size, warnings)?;
        let block_size = self.block_size;
        pack(entries, block_size, |value| self.keep(value))
            .map_err(|fault| refuse(tree, node, "", block_size, fault))
    }

    fn keep(&mut self, value: &[u8]) -> ValueId {
        if let Some(&id) = self.value_ids.get(value) {
            return id;
        }
        let id = ValueId(self.values.len() as u32);
        self.values.push(Value {
            bytes: value.into(),
            references: 0,
        });
        self.value_ids.insert(value.into(), id);
        id
    }

    /// Values in inodes of their own, by their ids.
    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }

    /// The first inode that needs the feature `ea_inode`.
    pub(crate) fn first_outside(&self) -> Option<NodeId> {
        self.outside
    }

    /// Forgets which blocks there are, to place anew.
    pub(crate) fn reset(&mut self) {
        self.blocks.clear();
        self.open.clear();
        self.of_node.clear();
        self.values
            .iter_mut()
            .for_each(|value| value.references = 0);
    }

    fn refer(&mut self, set: XattrSetId, to: impl Fn(&Packed) -> &[Entry]) {
        let entries = to(&self.packed[set.index()]);
        for id in entries.iter().filter_map(Entry::outside) {
            self.values[id.0 as usize].references += 1;
        }
    }

    /// Counts `node` as a user of its set's block. `Some(index)` when this is a
    /// new block, to be placed.
    pub(crate) fn claim(&mut self, node: NodeId, set: XattrSetId) -> Option<u32> {
        self.refer(set, |packed| &packed.in_inode);
        if self.packed[set.index()].in_block.is_empty() {
            return None;
        }
        if let Some(&index) = self.open.get(&set) {
            let block = &mut self.blocks[index as usize];
            if block.references < REFCOUNT_MAX {
                block.references += 1;
                self.of_node.insert(node, index);
                return None;
            }
        }
        let index = self.blocks.len() as u32;
        self.blocks.push(XattrBlock {
            set,
            references: 1,
            block: 0,
        });
        self.refer(set, |packed| &packed.in_block);
        self.open.insert(set, index);
        self.of_node.insert(node, index);
        Some(index)
    }

    /// Says where a block lies.
    pub(crate) fn place(&mut self, index: u32, block: u64) {
        self.blocks[index as usize].block = block;
    }

    /// The part of a set that lies in the inode.
    #[must_use]
    pub(crate) fn in_inode(&self, set: XattrSetId) -> &[Entry] {
        &self.packed[set.index()].in_inode
    }

    /// Blocks of the values that lie in inodes of their own, once for each entry
    /// of the set: an inode is charged for all of them, shared or not.
    pub(crate) fn value_blocks(&self, set: XattrSetId) -> u64 {
        let packed = &self.packed[set.index()];
        let entries = packed.in_inode.iter().chain(&packed.in_block);
        entries
            .filter_map(Entry::outside)
            .map(|id| self.values[id.0 as usize].bytes.len() as u64)
            .map(|bytes| self.block_size.blocks_of(bytes))
            .sum()
    }

    /// Where the block of a node's attributes lies, or 0.
    #[must_use]
    pub(crate) fn block_of(&self, node: NodeId) -> u64 {
        self.of_node
            .get(&node)
            .map_or(0, |&index| self.blocks[index as usize].block)
    }

    /// A block and the entries in it.
    #[must_use]
    pub(crate) fn block(&self, index: u32) -> (XattrBlock, &[Entry]) {
        let block = self.blocks[index as usize];
        (block, &self.packed[block.set.index()].in_block)
    }
}

fn translate(
    tree: &Tree,
    node: NodeId,
    set: XattrSetId,
    block_size: BlockSize,
    warnings: &mut Vec<String>,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for xattr in tree.xattrs(set) {
        let name = String::from_utf8_lossy(&xattr.name);
        match Entry::new(xattr) {
            Ok(entry) => entries.push(entry),
            // A property of the host's btrfs (compression), not of the file.
            Err(XattrFault::Prefix) if xattr.name.starts_with(b"btrfs.") => warnings.push(format!(
                "{}: the attribute {name} is a property of the host's btrfs and was left out",
                tree.display_path(node),
            )),
            Err(fault) => return Err(refuse(tree, node, &name, block_size, fault)),
        }
    }
    Ok(entries)
}

fn refuse(
    tree: &Tree,
    node: NodeId,
    name: &str,
    block_size: BlockSize,
    fault: XattrFault,
) -> Error {
    let reason = match fault {
        XattrFault::Prefix => format!("ext4 cannot keep the attribute {name}: it knows user., trusted., security. and POSIX ACLs; remove it from the layer"),
        XattrFault::Name => format!("the attribute name {name:?} is empty or longer than 255 bytes behind its prefix"),
        XattrFault::Acl => format!("the value of {name} is no POSIX ACL of version 2: set it anew in the layer"),
        XattrFault::Room => format!("the names of its extended attributes need more than the inode and one block of {} bytes; remove some from the layer{}", block_size.bytes(), larger(block_size)),
    };
    Error::Unrepresentable {
        path: tree.display_path(node),
        reason,
    }
}
