//! The order in which numbers and data are given out: layer by layer, base
//! first, by path within a layer. See [`Slot`].
//!
//! Each layer's tree is walked as it lies in that layer, so that what the
//! layers 0..k give is the same whether or not layers above them exist: only
//! [`Slot::Node`] becomes [`Slot::Ghost`], and [`Slot::Directory`] becomes
//! [`Slot::GhostDirectory`]. For the same reason an inode of several names has
//! its place at the first of them, even when that one is hidden and another
//! shows. (Redirects move what lies below, so with them the order is only the
//! same for the same layers.)

use super::entry::{Flags, Type, HIDDEN};
use super::fates::{Fate, Fates};
use super::holes::Prober;
use super::scanned::{EntryId, Scan};
use crate::control::Control;
use crate::error::Result;
use crate::tree::{NodeId, Slot, Tree};

/// Gives the tree its slots.
pub(super) fn place(
    tree: &mut Tree,
    scan: &Scan,
    mut fates: Fates,
    mut prober: Prober<'_>,
    control: &Control,
) -> Result<()> {
    let mut pending = Vec::new();
    let mut below = Vec::new();
    for root in &scan.roots {
        pending.push(root.link);
        while let Some(directory) = pending.pop() {
            control.check()?;
            for slot in directory_slots(scan, &fates, directory) {
                tree.push_slot(slot)?;
            }
            for id in scan.entries(directory) {
                let entry = scan.entry(id);
                if entry.is_directory() {
                    below.push(entry.link);
                } else if let Some(slot) = entry_slot(scan, directory, id, &mut fates, &mut prober)
                {
                    tree.push_slot(slot)?;
                }
            }
            // The last pushed is the next taken: first names first.
            pending.extend(below.drain(..).rev());
        }
    }
    Ok(())
}

fn directory_slots(scan: &Scan, fates: &Fates, directory: u32) -> Vec<Slot> {
    let mut slots: Vec<Slot> = fates.of(directory).map(directory_slot).collect();
    if slots.is_empty() {
        // Not met by the merge; only redirects can bring that about.
        let mut alone = Fate::new(None);
        for id in scan.entries(directory) {
            let entry = scan.entry(id);
            if !entry.has(Flags::WHITEOUT) {
                alone.names = alone.names.saturating_add(1);
                alone.bytes = alone.bytes.saturating_add(entry.name_len.into());
            }
        }
        slots.push(directory_slot(&alone));
    }
    slots
}

const fn directory_slot(fate: &Fate) -> Slot {
    match fate.node {
        Some(node) => Slot::Directory {
            node,
            names: fate.names,
            bytes: fate.bytes,
        },
        None => Slot::GhostDirectory {
            inode: fate.first,
            names: fate.names,
            bytes: fate.bytes,
        },
    }
}

fn entry_slot(
    scan: &Scan,
    directory: u32,
    id: EntryId,
    fates: &mut Fates,
    prober: &mut Prober<'_>,
) -> Option<Slot> {
    let entry = scan.entry(id);
    if entry.has(Flags::WHITEOUT) {
        return None;
    }
    let node = if entry.has(Flags::LINKED) {
        fates.links.place(entry)?
    } else {
        entry.link
    };
    if node != HIDDEN {
        return Some(Slot::Node(NodeId::new(node)));
    }
    let size = match entry.kind() {
        Type::File if entry.has(Flags::SPARSE) && prober.has_holes(scan, directory, id) => 0,
        Type::File | Type::Symlink => entry.size,
        _ => 0,
    };
    Some(Slot::Ghost { inode: true, size })
}
