//! Where the new groups keep their bitmaps and inode tables.

use std::ops::Range;

use super::shape::Shape;

/// What one new group has of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Placed {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
}

/// The new groups of one flex group.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) groups: Range<u32>,
    pub(super) placed: Vec<Placed>,
    /// Blocks in use by bitmaps and tables, ascending and apart.
    pub(super) used: Vec<Range<u64>>,
    /// Whether each group has its own in itself.
    pub(super) apart: bool,
}

/// The groups from `first` on, flex group by flex group.
pub(super) fn batches(new: &Shape, first: u32) -> impl Iterator<Item = Batch> + '_ {
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= new.groups {
            return None;
        }
        let end = u64::from(at - at % new.flex) + u64::from(new.flex);
        // OK to cut: at most the groups.
        let groups = at..end.min(u64::from(new.groups)) as u32;
        at = groups.end;
        Some(together(new, groups.clone()).unwrap_or_else(|| apart(new, groups)))
    })
}

/// All bitmaps and tables at the beginning, one kind after the other, as mke2fs
/// and the kernel do it. `None` when there is no room: with the largest tables
/// the last, cut group may be missing.
fn together(new: &Shape, groups: Range<u32>) -> Option<Batch> {
    if new.flex == 1 {
        return None;
    }
    let mut cursor = Cursor {
        new,
        groups: groups.clone(),
        at: new.area(groups.start).end,
        used: Vec::new(),
    };
    let mut placed = vec![Placed::default(); groups.len()];
    for one in &mut placed {
        one.block_bitmap = cursor.take(1)?;
    }
    for one in &mut placed {
        one.inode_bitmap = cursor.take(1)?;
    }
    for one in &mut placed {
        one.inode_table = cursor.take(u64::from(new.table_blocks()))?;
    }
    Some(Batch {
        groups,
        placed,
        used: cursor.used,
        apart: false,
    })
}

/// Each group has its own in itself. There is room: `size::shape` leaves out a
/// group that does not hold its own.
fn apart(new: &Shape, groups: Range<u32>) -> Batch {
    let size = u64::from(new.table_blocks());
    let place = |group: u32| {
        let at = new.area(group).end;
        Placed {
            block_bitmap: at,
            inode_bitmap: at + 1,
            inode_table: at + 2,
        }
    };
    let placed: Vec<_> = groups.clone().map(place).collect();
    let used = placed
        .iter()
        .map(|one| one.block_bitmap..one.inode_table + size)
        .collect();
    Batch {
        groups,
        placed,
        used,
        apart: true,
    }
}

struct Cursor<'a> {
    new: &'a Shape,
    groups: Range<u32>,
    at: u64,
    used: Vec<Range<u64>>,
}

impl Cursor<'_> {
    /// The next `count` blocks in a row that no superblock's area lies in.
    fn take(&mut self, count: u64) -> Option<u64> {
        let end = self.new.end(self.groups.end - 1);
        loop {
            let stop = self.at.checked_add(count)?;
            if stop > end {
                return None;
            }
            let last = self.new.group_of(stop - 1)?;
            let blocking = (self.new.group_of(self.at)?..=last)
                .map(|group| self.new.area(group))
                .find(|area| area.start < stop && self.at < area.end);
            if let Some(area) = blocking {
                self.at = area.end;
                continue;
            }
            let start = self.at;
            self.at = stop;
            match self.used.last_mut() {
                Some(range) if range.end == start => range.end = stop,
                _ => self.used.push(start..stop),
            }
            return Some(start);
        }
    }
}
