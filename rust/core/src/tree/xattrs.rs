//! Extended attributes. Inodes share equal sets.

use std::collections::HashMap;

use super::node::id;

id! {
    /// Names a set of extended attributes.
    XattrSetId
}

impl XattrSetId {
    /// The set of no attribute.
    pub const EMPTY: Self = Self::new(0);
}

/// One attribute, as `listxattr` and `getxattr` tell it: the full name, and
/// POSIX ACLs in the kernel's form (version 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xattr {
    /// Full name with its prefix, such as `b"security.capability"`.
    pub name: Box<[u8]>,
    /// Value, of any bytes.
    pub value: Box<[u8]>,
}

/// Attributes of one inode, sorted by name.
pub type XattrSet = Box<[Xattr]>;

/// All sets of a tree.
#[derive(Clone, Debug)]
pub struct XattrSets {
    sets: Vec<XattrSet>,
    ids: HashMap<XattrSet, XattrSetId>,
}

impl Default for XattrSets {
    fn default() -> Self {
        let empty = XattrSet::default();
        Self {
            sets: vec![empty.clone()],
            ids: HashMap::from([(empty, XattrSetId::EMPTY)]),
        }
    }
}

impl XattrSets {
    /// The attributes of that set.
    #[must_use]
    pub fn get(&self, id: XattrSetId) -> &XattrSet {
        &self.sets[id.index()]
    }

    /// How many different sets there are, with the empty one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Never: the empty set is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The id of an equal set, added if need be. `None` above 2^32 sets.
    pub fn intern(&mut self, mut set: XattrSet) -> Option<XattrSetId> {
        set.sort_unstable();
        if let Some(&id) = self.ids.get(&set) {
            return Some(id);
        }
        let id = XattrSetId::new(u32::try_from(self.sets.len()).ok()?);
        self.sets.push(set.clone());
        self.ids.insert(set, id);
        Some(id)
    }
}
