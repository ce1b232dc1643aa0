//! What differs of one name that both trees have, but for its bytes and links.

use std::cmp::Ordering;

use super::report::{Change, Type};
use super::Ignore;
use crate::tree::{Kind, NodeId, Tree};

/// Adds what differs to `changes`.
pub(super) fn compare<'a>(
    trees: [&'a Tree; 2],
    a: NodeId,
    b: NodeId,
    ignore: Ignore,
    changes: &mut Vec<Change<'a>>,
) {
    let (a, b) = (trees[0].node(a), trees[1].node(b));
    let types = (Type::of(a.kind), Type::of(b.kind));
    if types.0 != types.1 {
        changes.push(Change::Type(types.0, types.1));
    }
    let (left, right) = (&a.metadata, &b.metadata);
    if !ignore.contains(Ignore::MODE) && left.permissions != right.permissions {
        changes.push(Change::Mode(left.permissions, right.permissions));
    }
    if !ignore.contains(Ignore::OWNER) {
        if left.uid != right.uid {
            changes.push(Change::Uid(left.uid, right.uid));
        }
        if left.gid != right.gid {
            changes.push(Change::Gid(left.gid, right.gid));
        }
    }
    if !ignore.contains(Ignore::MTIME) && left.mtime != right.mtime {
        changes.push(Change::Mtime(left.mtime, right.mtime));
    }
    match (a.kind, b.kind) {
        (Kind::File { size, .. }, Kind::File { size: other, .. })
            if size != other && !ignore.contains(Ignore::CONTENT) =>
        {
            changes.push(Change::Size(size, other));
        }
        (Kind::Symlink(target), Kind::Symlink(other)) => {
            let (target, other) = (trees[0].name(target), trees[1].name(other));
            if target != other {
                changes.push(Change::Target(target, other));
            }
        }
        (Kind::CharDevice(device), Kind::CharDevice(other))
        | (Kind::BlockDevice(device), Kind::BlockDevice(other))
            if device != other =>
        {
            changes.push(Change::Device(device, other));
        }
        _ => {}
    }
    if !ignore.contains(Ignore::XATTRS) {
        let left = trees[0].xattrs(left.xattrs);
        let right = trees[1].xattrs(right.xattrs);
        if left != right {
            xattrs(left, right, changes);
        }
    }
}

/// Both are sorted by name.
fn xattrs<'a>(
    mut left: &'a [crate::tree::Xattr],
    mut right: &'a [crate::tree::Xattr],
    changes: &mut Vec<Change<'a>>,
) {
    loop {
        let order = match (left.first(), right.first()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let mut name: &[u8] = b"";
        let mut values = [None, None];
        if order != Ordering::Greater {
            (name, values[0]) = (&left[0].name, Some(&*left[0].value));
            left = &left[1..];
        }
        if order != Ordering::Less {
            (name, values[1]) = (&right[0].name, Some(&*right[0].value));
            right = &right[1..];
        }
        if values[0] != values[1] {
            changes.push(Change::Xattr(name, values));
        }
    }
}
