//! Inodes of more names than a file system can count.

use std::collections::HashMap;

use super::{Kind, NodeId, Slot, Tree};
use crate::error::Result;

impl Tree {
    /// Divides inodes of more than `most` names into as many equal ones as
    /// they need, each with at most `most` names, and returns a sentence for each
    /// that was divided. The first names by path stay with the first inode.
    pub fn split_links(&mut self, most: u32) -> Result<Vec<String>> {
        let large: Vec<NodeId> = self
            .nodes()
            .filter(|(_, node)| node.links > most && !matches!(node.kind, Kind::Directory(_)))
            .map(|(id, _)| id)
            .collect();
        if large.is_empty() {
            return Ok(Vec::new());
        }
        let warnings = large
            .iter()
            .map(|&id| {
                let links = self.node(id).links;
                format!(
                    "{}: {links} hard links of one file; ext4 counts {most}, so it became {} equal files",
                    self.display_path(id),
                    links.div_ceil(most)
                )
            })
            .collect();
        // For each the inode that takes its next names.
        let mut takers: HashMap<NodeId, NodeId> = HashMap::new();
        for &id in &large {
            self.node_mut(id).links = 0;
            takers.insert(id, id);
        }
        let mut pending = vec![self.root()];
        while let Some(directory) = pending.pop() {
            let count = self.directory(directory).map_or(0, |dir| dir.entries.len());
            let mut below = Vec::new();
            for index in 0..count {
                // OK to index: nothing is added to or taken from the entries.
                let Some(dir) = self.directory(directory) else {
                    break;
                };
                let named = dir.entries[index].node;
                if matches!(self.node(named).kind, Kind::Directory(_)) {
                    below.push(named);
                }
                let Some(&taker) = takers.get(&named) else {
                    continue;
                };
                let taker = if self.node(taker).links < most {
                    taker
                } else {
                    let mut copy = *self.node(named);
                    copy.links = 0;
                    let copy = self.add_node(copy)?;
                    self.push_slot(Slot::Node(copy))?;
                    takers.insert(named, copy);
                    copy
                };
                self.node_mut(taker).links += 1;
                if let Some(dir) = self.directory_mut(directory) {
                    dir.entries[index].node = taker;
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(warnings)
    }
}
