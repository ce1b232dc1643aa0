//! The way of one build: scan, merge, inject, plan, write, sync.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::control::{Control, Phase};
use crate::error::Result;
use crate::ext4::plan::{ImageOptions, Plan};
use crate::ext4::write::WriteOptions;
use crate::layers::{self, MergeOptions};
use crate::tree::inject::Injection;
use crate::{ext4, tree};

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildSpec {
    /// The layers' directories, base first.
    pub layers: Vec<PathBuf>,
    /// How the layers are to be understood.
    pub merge: MergeOptions,
    /// Files to put in, in this order, each as if one more layer held it.
    pub files: Vec<Injection>,
    /// Whether the last of `files` is an agent, which the image must be able
    /// to run: see [`crate::agent`].
    pub check_agent: bool,
    /// What the image is to be like.
    pub image: ImageOptions,
    /// Threads for scanning and copying; 0 is one for each processor.
    pub threads: usize,
    /// Whether to wait until the disk has everything.
    pub sync: bool,
}

/// What a build did.
#[derive(Clone, Debug, Default)]
pub struct BuildReport {
    /// What is in the image.
    pub counts: tree::Counts,
    /// Size of the image file in bytes.
    pub image_bytes: u64,
    /// Bytes of it that were written (data and metadata); the rest is holes.
    pub written_bytes: u64,
    /// Block size in bytes.
    pub block_size: u32,
    /// Inodes the file system has, and how many are free.
    pub inodes: u32,
    /// See `inodes`.
    pub free_inodes: u32,
    /// Blocks the file system has, and how many are free.
    pub blocks: u64,
    /// See `blocks`.
    pub free_blocks: u64,
    /// The file system's UUID.
    pub uuid: [u8; 16],
    /// How data came into the image: "read+pwrite", "copy_file_range", ...
    pub copy_method: String,
    /// What the user should know: each a full sentence with its path.
    pub warnings: Vec<String>,
    /// How long each phase took.
    pub phases: Vec<(Phase, Duration)>,
}

/// Sees that the merged chain can run `agent`, without building anything.
///
/// # Errors
/// Those of [`crate::agent::check`], of the merge and of the injection.
pub fn check_agent(
    layers: &[PathBuf],
    options: MergeOptions,
    agent: &Injection,
    threads: usize,
    control: &Control,
) -> Result<()> {
    let threads = effective_threads(threads);
    let (mut tree, files, _) = layers::merge(layers, options, threads, control, |_| {})?;
    let node = tree.inject(agent)?;
    crate::agent::check(&tree, &files, node)
}

/// Merges the chain and writes its image to `output`, which must exist, be
/// empty and be open for reading and writing; `output_path` is for messages.
/// On an error the file's content is undefined: the caller throws it away.
pub fn build(
    spec: &BuildSpec,
    output: &std::fs::File,
    output_path: &std::path::Path,
    control: &Control,
) -> Result<BuildReport> {
    let mut clock = Clock::default();
    let threads = effective_threads(spec.threads);

    let (mut tree, files, mut warnings) =
        layers::merge(&spec.layers, spec.merge, threads, control, |phase| {
            clock.enter(phase)
        })?;
    let mut last = None;
    for file in &spec.files {
        last = Some(tree.inject(file)?);
    }
    if let Some(agent) = last.filter(|_| spec.check_agent) {
        crate::agent::check(&tree, &files, agent)?;
    }
    warnings.extend(tree.split_links(ext4::plan::LINK_MAX)?);
    control.check()?;

    clock.enter(Phase::Plan);
    control.begin(Phase::Plan, 0);
    let plan = Plan::new(&tree, &spec.image)?;
    control.check()?;

    clock.enter(Phase::Write);
    control.begin(Phase::Write, plan.bytes_to_write());
    let written = ext4::write::write_image(
        &plan,
        &files,
        output,
        output_path,
        WriteOptions {
            threads,
            write_back: spec.sync,
        },
        control,
    )?;

    clock.enter(Phase::Sync);
    control.begin(Phase::Sync, 0);
    if spec.sync {
        rustix::fs::fsync(output).map_err(crate::Error::io("sync", output_path))?;
    }
    warnings.extend(plan.warnings().iter().cloned());
    Ok(BuildReport {
        counts: tree.counts(),
        image_bytes: plan.image_bytes(),
        written_bytes: written.bytes,
        block_size: plan.block_size(),
        inodes: plan.inode_count(),
        free_inodes: plan.free_inodes(),
        blocks: plan.block_count(),
        free_blocks: plan.free_blocks(),
        uuid: plan.uuid(),
        copy_method: written.method.into(),
        warnings,
        phases: clock.finish(),
    })
}

/// The number of threads meant by `threads`, where 0 is one a processor.
#[must_use]
pub fn effective_threads(threads: usize) -> usize {
    if threads > 0 {
        return threads;
    }
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[derive(Default)]
struct Clock {
    current: Option<(Phase, Instant)>,
    done: Vec<(Phase, Duration)>,
}

impl Clock {
    fn enter(&mut self, phase: Phase) {
        self.leave();
        self.current = Some((phase, Instant::now()));
    }

    fn leave(&mut self) {
        if let Some((phase, since)) = self.current.take() {
            self.done.push((phase, since.elapsed()));
        }
    }

    fn finish(mut self) -> Vec<(Phase, Duration)> {
        self.leave();
        self.done
    }
}
