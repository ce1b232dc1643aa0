//! What says that a chain did not change, without a look at its data.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::layer::wanted;
use super::Digest;
use crate::control::{Control, Phase};
use crate::error::Result;
use crate::layers::{self, LayerFiles, MergeOptions};
use crate::tree::{ContentId, Tree};
use crate::workers;

const LAYER_CONTEXT: &str = "layermelt 2026-11 layer by stat";
const CHAIN_CONTEXT: &str = "layermelt 2026-11 chain by stat";

/// Files that are looked at between two looks at the control.
const STEP: usize = 256;

/// What says that a layer did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Equal as long as nothing was written.
    pub digest: Digest,
    /// The newest ctime of a file with data, in ns since 1970; `i128::MIN`
    /// without one. While that is as good as now, a file may be written to
    /// again without getting another ctime.
    pub newest_change: i128,
}

/// A fingerprint of a chain where it lies: as long as it stays the same,
/// nothing in the layers was written to. No data is read.
///
/// It covers all that a layer's digest does but the data, and of each file with
/// data its inode number and ctime: writing to a file moves its ctime, and no
/// program can set that back, as `touch -r` does with the mtime. So a copy of the
/// chain has another fingerprint, and so has a chain whose files were linked,
/// renamed or given a mode anew: it may differ needlessly. It may be equal
/// wrongly only where a file is written to within the file system's clock tick
/// (some ms) of the fingerprint, or where the machine's clock was set back.
/// `st_dev` is left out: it changes from boot to boot.
pub fn stat_fingerprint(
    layers: &[PathBuf],
    options: MergeOptions,
    threads: usize,
    control: &Control,
) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
    hasher.update(&[
        u8::from(options.userxattr),
        u8::from(options.fuse_overlayfs),
    ]);
    for layer in layers {
        hasher.update(&layer_fingerprint(layer, options.inode_flags, threads, control)?.digest);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// The same of one layer; with `inode_flags` as in [`MergeOptions`].
pub fn layer_fingerprint(
    layer: &Path,
    inode_flags: bool,
    threads: usize,
    control: &Control,
) -> Result<Fingerprint> {
    let (tree, files) = layers::read_raw(layer, inode_flags, threads, control)?;
    let wanted: Vec<ContentId> = wanted(&tree).iter().map(|file| file.content).collect();
    control.begin(Phase::Hash, wanted.len() as u64);
    let share = wanted.len().div_ceil(threads.max(1)).max(STEP);
    let parts: Vec<_> = wanted.chunks(share).collect();
    let next = AtomicUsize::new(0);
    let found = workers::run(parts.len(), |failed| {
        let mut found = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(at) else { break };
            found.push((at, records(&tree, &files, part, control)?));
        }
        Ok(found)
    })?;
    let mut records: Vec<_> = found.into_iter().flatten().collect();
    records.sort_unstable_by_key(|&(at, _)| at);
    let mut hasher = blake3::Hasher::new_derive_key(LAYER_CONTEXT);
    hasher.update(&tree.metadata_digest());
    let mut newest_change = i128::MIN;
    for (_, part) in records {
        hasher.update(&part.bytes);
        newest_change = newest_change.max(part.newest_change);
    }
    Ok(Fingerprint {
        digest: *hasher.finalize().as_bytes(),
        newest_change,
    })
}

struct Records {
    bytes: Vec<u8>,
    newest_change: i128,
}

/// Inode number and ctime of each file.
fn records(
    tree: &Tree,
    files: &LayerFiles,
    wanted: &[ContentId],
    control: &Control,
) -> Result<Records> {
    let mut statuses = files.statuses(tree);
    let mut records = Records {
        bytes: Vec::with_capacity(wanted.len() * 24),
        newest_change: i128::MIN,
    };
    for step in wanted.chunks(STEP) {
        control.check()?;
        for &content in step {
            let Some(stat) = statuses.get(content)? else {
                continue;
            };
            records.bytes.extend_from_slice(&stat.st_ino.to_le_bytes());
            records
                .bytes
                .extend_from_slice(&stat.st_ctime.to_le_bytes());
            records
                .bytes
                .extend_from_slice(&stat.st_ctime_nsec.to_le_bytes());
            let change = i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec);
            records.newest_change = records.newest_change.max(change);
        }
        control.advance(step.len() as u64);
    }
    Ok(records)
}
