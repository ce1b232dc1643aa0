//! The digest of a layer and of a chain.

use std::path::{Path, PathBuf};

use super::data::{digests, Wanted};
use super::Digest;
use crate::control::{Control, Phase};
use crate::error::Result;
use crate::layers::{self, MergeOptions};
use crate::tree::{Content, Kind, NodeId, Tree};

const LAYER_CONTEXT: &str = "layermelt 2026-11 layer";
const CHAIN_CONTEXT: &str = "layermelt 2026-11 chain";

/// The digest of a layer directory: of every entry's name, type, mode, owner,
/// mtime in ns, device number, extended attributes, hard links and data, with
/// overlay's marks as what they are on disk (whiteouts are device nodes, opaque
/// directories have an attribute). Equal for equal layers on any file system, in
/// any order of reading, with any number of threads.
///
/// Left out are xfs's raw form of ACLs, which it tells a second time, and unless
/// `inode_flags` asks for them the flags that `chattr` sets; without such flags
/// both digests are one.
pub fn layer_digest(
    layer: &Path,
    inode_flags: bool,
    threads: usize,
    control: &Control,
) -> Result<Digest> {
    let (tree, files) = layers::read_raw(layer, inode_flags, threads, control)?;
    let wanted = wanted(&tree);
    let bytes = wanted
        .iter()
        .map(|file| file.size)
        .fold(0, u64::saturating_add);
    control.begin(Phase::Hash, bytes);
    let data = digests(&tree, &files, &wanted, threads, control)?;
    let mut hasher = blake3::Hasher::new_derive_key(LAYER_CONTEXT);
    hasher.update(&tree.metadata_digest());
    for digest in data {
        hasher.update(&digest);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// The digest of a chain, base first, understood with `options`: of its layers'
/// digests in their order.
pub fn chain_digest(
    layers: &[PathBuf],
    options: MergeOptions,
    threads: usize,
    control: &Control,
) -> Result<Digest> {
    let digests: Vec<Digest> = layers
        .iter()
        .map(|layer| layer_digest(layer, options.inode_flags, threads, control))
        .collect::<Result<_>>()?;
    Ok(chain_of(&digests, options))
}

/// The digest of a chain whose layers have these digests, base first.
#[must_use]
pub fn chain_of(layers: &[Digest], options: MergeOptions) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
    hasher.update(&[
        u8::from(options.userxattr),
        u8::from(options.fuse_overlayfs),
    ]);
    for layer in layers {
        hasher.update(layer);
    }
    *hasher.finalize().as_bytes()
}

/// The regular files with data, each inode once, in the order of their paths.
pub(super) fn wanted(tree: &Tree) -> Vec<Wanted<'_>> {
    let mut seen = vec![false; tree.len()];
    let mut wanted = Vec::new();
    let mut pending: Vec<NodeId> = vec![tree.root()];
    while let Some(directory) = pending.pop() {
        let entries = tree
            .directory(directory)
            .map_or(&[][..], |directory| &directory.entries);
        for entry in entries {
            if std::mem::replace(&mut seen[entry.node.index()], true) {
                continue;
            }
            match tree.node(entry.node).kind {
                Kind::Directory(_) => pending.push(entry.node),
                Kind::File { size, content } if size > 0 => {
                    let data = match tree.content(content) {
                        Content::Layer { data, .. } => data.as_deref(),
                        _ => None,
                    };
                    wanted.push(Wanted {
                        content,
                        size,
                        data,
                    });
                }
                _ => {}
            }
        }
    }
    wanted
}
