//! How a running build is watched and stopped from another thread.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};

use crate::error::{Error, Result};

/// The steps of a build in their order, and other long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Reading the layers' directories.
    Scan = 0,
    /// Merging them by the kernel's rules, and injecting files.
    Merge = 1,
    /// Placing everything.
    Plan = 2,
    /// Copying data and writing metadata.
    Write = 3,
    /// Waiting for the disk.
    Sync = 4,
    /// Reading data for its digest.
    Hash = 5,
    /// Looking at inodes, by block groups.
    Inodes = 6,
    /// Looking at directories.
    Directories = 7,
    /// Comparing names with what inodes tell.
    Links = 8,
    /// Comparing bitmaps with what is in use, by block groups.
    Bitmaps = 9,
    /// Comparing data.
    Compare = 10,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Scan,
        Self::Merge,
        Self::Plan,
        Self::Write,
        Self::Sync,
        Self::Hash,
        Self::Inodes,
        Self::Directories,
        Self::Links,
        Self::Bitmaps,
        Self::Compare,
    ];

    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Merge => "merge",
            Self::Plan => "plan",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Hash => "hash",
            Self::Inodes => "inodes",
            Self::Directories => "directories",
            Self::Links => "links",
            Self::Bitmaps => "bitmaps",
            Self::Compare => "compare",
        }
    }
}

/// Shared between the build and whoever watches it. All loads and stores are
/// relaxed: the numbers are for display, and a stop may come a moment late.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl Control {
    /// Asks the build to stop soon with [`Error::Interrupted`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// To be called between steps of at most some milliseconds each.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// Begins a phase with `total` units of work (entries in `Scan`, bytes in
    /// `Write`, 0 where the total is unknown).
    pub fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Counts `units` of the phase's work as done.
    pub fn advance(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    /// (phase, units done, units in all or 0).
    #[must_use]
    pub fn progress(&self) -> (Phase, u64, u64) {
        let phase = Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))];
        (
            phase,
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }
}
