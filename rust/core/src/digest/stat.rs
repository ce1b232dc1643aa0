//! What says that a chain did not change, without a look at its data.

use std::path::{Path, PathBuf};

use super::layer::wanted;
use super::Digest;
use crate::control::{Control, Phase};
use crate::error::Result;
use crate::layers::{self, LayerFiles, MergeOptions};
use crate::tree::{ContentId, Tree};

const LAYER_CONTEXT: &str = "layermelt 2026-11 layer by stat";
const CHAIN_CONTEXT: &str = "layermelt 2026-11 chain by stat";

/// Files that are looked at between two looks at the control.
const STEP: usize = 256;

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
        hasher.update(&fingerprint(layer, threads, control)?);
    }
    Ok(*hasher.finalize().as_bytes())
}

fn fingerprint(layer: &Path, threads: usize, control: &Control) -> Result<Digest> {
    let (tree, files) = layers::read_raw(layer, threads, control)?;
    let wanted: Vec<ContentId> = wanted(&tree).iter().map(|file| file.content).collect();
    control.begin(Phase::Hash, wanted.len() as u64);
    let share = wanted.len().div_ceil(threads.max(1)).max(STEP);
    let records: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = wanted
            .chunks(share)
            .map(|part| scope.spawn(|| records(&tree, &files, part, control)))
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let mut hasher = blake3::Hasher::new_derive_key(LAYER_CONTEXT);
    hasher.update(&tree.metadata_digest());
    for record in records {
        hasher.update(&record?);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Inode number and ctime of each file.
fn records(
    tree: &Tree,
    files: &LayerFiles,
    wanted: &[ContentId],
    control: &Control,
) -> Result<Vec<u8>> {
    let mut statuses = files.statuses(tree);
    let mut records = Vec::with_capacity(wanted.len() * 24);
    for step in wanted.chunks(STEP) {
        control.check()?;
        for &content in step {
            let Some(stat) = statuses.get(content)? else {
                continue;
            };
            records.extend_from_slice(&stat.st_ino.to_le_bytes());
            records.extend_from_slice(&stat.st_ctime.to_le_bytes());
            records.extend_from_slice(&stat.st_ctime_nsec.to_le_bytes());
        }
        control.advance(step.len() as u64);
    }
    Ok(records)
}
