//! Inode numbers, in placement order.

use super::geometry::Spacing;
use crate::error::{Error, Result};
use crate::ext4::format::xattr::ValueId;
use crate::ext4::format::{FIRST_INODE, ROOT_INODE};
use crate::tree::{NodeId, Slot, Tree};

/// `lost+found` has the first ordinary number, as mke2fs gives it.
pub(crate) const LOST_AND_FOUND: u32 = FIRST_INODE;

/// The root directory's number.
pub(crate) const ROOT: u32 = ROOT_INODE;

/// Which node has which number.
#[derive(Debug)]
pub(crate) struct Numbers {
    of_node: Vec<u32>,
    node_of: Vec<u32>,
    /// Inodes behind those of the tree that hold attributes' values.
    values: u32,
}

/// No node, or no number.
const NONE: u32 = u32::MAX;

impl Numbers {
    /// Numbers all visible inodes; in [`Spacing::Stable`] hidden ones leave
    /// gaps.
    /// `values` inodes with attributes' values come last.
    pub(crate) fn new(tree: &Tree, spacing: Spacing, values: usize) -> Result<Self> {
        let mut numbers = Self {
            of_node: vec![NONE; tree.len()],
            // Number 0 does not exist; up to 11 they are spoken for.
            node_of: vec![NONE; FIRST_INODE as usize + 1],
            values: 0,
        };
        numbers.of_node[tree.root().index()] = ROOT_INODE;
        numbers.node_of[ROOT_INODE as usize] = 0;
        for slot in tree.slots() {
            match *slot {
                Slot::Node(node) | Slot::Directory { node, .. } => {
                    let visible = tree.node(node).links > 0;
                    if numbers.of_node[node.index()] != NONE {
                        continue;
                    }
                    if visible {
                        numbers.of_node[node.index()] = numbers.node_of.len() as u32;
                        numbers.node_of.push(node.index() as u32);
                    } else if spacing == Spacing::Stable {
                        numbers.node_of.push(NONE);
                    }
                }
                Slot::Ghost { inode: true, .. } | Slot::GhostDirectory { inode: true, .. } => {
                    if spacing == Spacing::Stable {
                        numbers.node_of.push(NONE);
                    }
                }
                Slot::Ghost { .. } | Slot::GhostDirectory { .. } => {}
            }
        }
        let values = u32::try_from(values).ok();
        let all = values.and_then(|values| {
            numbers.values = values;
            u32::try_from(numbers.node_of.len())
                .ok()?
                .checked_add(values)
        });
        if all.is_none() {
            return Err(Error::Unrepresentable {
                path: "/".into(),
                reason: "the tree has more inodes than ext4 has numbers (4,294,967,295)".into(),
            });
        }
        Ok(numbers)
    }

    /// The number of a visible node.
    #[must_use]
    pub(crate) fn of(&self, node: NodeId) -> u32 {
        self.of_node[node.index()]
    }

    /// The node of a number, if it has one.
    #[must_use]
    pub(crate) fn node(&self, number: u32) -> Option<NodeId> {
        match self.node_of.get(number as usize) {
            None | Some(&NONE) => None,
            Some(&index) => Some(NodeId::new(index)),
        }
    }

    /// The number of the inode with a value.
    #[must_use]
    pub(crate) fn of_value(&self, value: ValueId) -> u32 {
        self.node_of.len() as u32 + value.0
    }

    /// The value in the inode of a number, if it holds one.
    #[must_use]
    pub(crate) fn value(&self, number: u32) -> Option<ValueId> {
        let index = number.checked_sub(self.node_of.len() as u32)?;
        (index < self.values).then_some(ValueId(index))
    }

    /// The highest number given.
    #[must_use]
    pub(crate) fn highest(&self) -> u32 {
        self.node_of.len() as u32 - 1 + self.values
    }
}
