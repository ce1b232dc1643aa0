//! A digest of everything the tree says but the files' data.

use super::{Kind, Tree};

impl Tree {
    /// BLAKE3 over every visible inode's type, owner, permissions, mtime,
    /// size, target, device, attributes and names, in placement order. Equal
    /// trees have equal digests whatever host file system their layers lie on.
    /// It says nothing about the files' data.
    #[must_use]
    pub fn metadata_digest(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_derive_key("layermelt 2026-11 merged tree metadata");
        let mut record = Vec::with_capacity(512);
        // Inodes are named by their order of first visit: arena order depends
        // on how the layers were scanned.
        let mut order = vec![u32::MAX; self.len()];
        let mut next = 0u32;
        let mut pending = vec![self.root()];
        order[self.root().index()] = next;
        self.describe(self.root(), &mut record);
        while let Some(dir) = pending.pop() {
            let entries = self.directory(dir).map_or(&[][..], |dir| &dir.entries);
            record.extend_from_slice(&order[dir.index()].to_le_bytes());
            record.extend_from_slice(&(entries.len() as u64).to_le_bytes());
            for entry in entries {
                let name = self.name(entry.name);
                record.extend_from_slice(&(name.len() as u64).to_le_bytes());
                record.extend_from_slice(name);
                let known = &mut order[entry.node.index()];
                if *known == u32::MAX {
                    next += 1;
                    *known = next;
                    record.extend_from_slice(&next.to_le_bytes());
                    self.describe(entry.node, &mut record);
                    if matches!(self.node(entry.node).kind, Kind::Directory(_)) {
                        pending.push(entry.node);
                    }
                } else {
                    record.extend_from_slice(&known.to_le_bytes());
                }
                if record.len() >= 1 << 16 {
                    hash.update(&record);
                    record.clear();
                }
            }
        }
        hash.update(&record);
        *hash.finalize().as_bytes()
    }

    fn describe(&self, id: super::NodeId, out: &mut Vec<u8>) {
        let node = self.node(id);
        let (tag, a, b) = match node.kind {
            Kind::Directory(_) => (b'd', 0, 0),
            Kind::File { size, .. } => (b'f', size, 0),
            Kind::Symlink(target) => (b'l', target.len() as u64, 0),
            Kind::CharDevice(device) => (b'c', u64::from(device.major), u64::from(device.minor)),
            Kind::BlockDevice(device) => (b'b', u64::from(device.major), u64::from(device.minor)),
            Kind::Fifo => (b'p', 0, 0),
            Kind::Socket => (b's', 0, 0),
        };
        // An inode with flags has another tag, so that those without have the
        // digests that they always had.
        let flags = node.metadata.flags;
        if flags.is_empty() {
            out.push(tag);
        } else {
            out.extend_from_slice(&[tag.to_ascii_uppercase(), flags.bits()]);
        }
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&b.to_le_bytes());
        if let Kind::Symlink(target) = node.kind {
            out.extend_from_slice(self.name(target));
        }
        let meta = &node.metadata;
        out.extend_from_slice(&meta.permissions.to_le_bytes());
        out.extend_from_slice(&meta.uid.to_le_bytes());
        out.extend_from_slice(&meta.gid.to_le_bytes());
        out.extend_from_slice(&meta.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&meta.mtime.nanoseconds.to_le_bytes());
        let xattrs = self.xattrs(meta.xattrs);
        out.extend_from_slice(&(xattrs.len() as u64).to_le_bytes());
        for xattr in xattrs {
            for part in [&xattr.name, &xattr.value] {
                out.extend_from_slice(&(part.len() as u64).to_le_bytes());
                out.extend_from_slice(part);
            }
        }
    }
}
