//! Ways to a layer's directories by descriptor, whatever their depth, with a
//! bounded number of descriptors open.
//!
//! A directory is known by a number; who is above it tells a [`Lineage`]. A
//! [`Walker`] keeps the descriptors it used last, and reaches another directory
//! from the nearest one above that it still has, in as few calls as `PATH_MAX`
//! allows. Symlinks are refused at every step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{self, Errno};

use super::chain::Chain;

/// A path for one call must be shorter than `PATH_MAX` (4,096 with its NUL).
const CHUNK: usize = 4000;

/// What is above a directory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Above<'a> {
    /// Nothing: it is the root of this layer.
    Root(usize),
    /// A directory, and the name in it.
    Inside { parent: u32, name: &'a [u8] },
}

/// Tells the way from a directory up to its layer's root.
pub(super) trait Lineage {
    /// What is above `directory`.
    fn above(&self, directory: u32) -> Above<'_>;
}

/// One thread's open directories.
#[derive(Debug)]
pub(super) struct Walker {
    held: Vec<Held>,
    capacity: usize,
    clock: u64,
    flags: OFlags,
    start: Start,
    /// The way down from `start`, last step first.
    steps: Vec<Step>,
    names: Vec<u8>,
    chunk: Vec<u8>,
}

#[derive(Debug)]
struct Held {
    directory: u32,
    descriptor: OwnedFd,
    used: u64,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Root(usize),
    /// The descriptor held at this index.
    Held(usize),
}

#[derive(Clone, Copy, Debug)]
struct Step {
    directory: u32,
    start: usize,
    len: usize,
}

impl Walker {
    /// A walker that keeps at most `capacity` descriptors, opened with `flags`
    /// (`RDONLY` to list them, `PATH` to pass through).
    pub(super) fn new(capacity: usize, flags: OFlags) -> Self {
        Self {
            held: Vec::with_capacity(capacity),
            capacity: capacity.max(1),
            clock: 0,
            flags: flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            start: Start::Root(0),
            steps: Vec::new(),
            names: Vec::new(),
            chunk: Vec::new(),
        }
    }

    /// Finds the way to `directory`. No system call is made, so that it may be
    /// done while a lock on the lineage is held.
    pub(super) fn route(&mut self, directory: u32, lineage: &impl Lineage) {
        self.steps.clear();
        self.names.clear();
        let mut at = directory;
        self.start = loop {
            if let Some(index) = self.held.iter().position(|held| held.directory == at) {
                break Start::Held(index);
            }
            match lineage.above(at) {
                Above::Root(layer) => break Start::Root(layer),
                Above::Inside { parent, name } => {
                    self.steps.push(Step {
                        directory: at,
                        start: self.names.len(),
                        len: name.len(),
                    });
                    self.names.extend_from_slice(name);
                    at = parent;
                }
            }
        };
    }

    /// Goes the way that [`Self::route`] found.
    pub(super) fn go<'a>(&'a mut self, chain: &'a Chain) -> io::Result<BorrowedFd<'a>> {
        let mut at = self.start;
        while let Some(first) = self.steps.pop() {
            let mut end = first.directory;
            self.chunk.clear();
            self.chunk
                .extend_from_slice(&self.names[first.start..first.start + first.len]);
            while let Some(&step) = self.steps.last() {
                if self.chunk.len() + 1 + step.len > CHUNK {
                    break;
                }
                self.chunk.push(b'/');
                self.chunk
                    .extend_from_slice(&self.names[step.start..step.start + step.len]);
                end = step.directory;
                self.steps.pop();
            }
            let from = match at {
                Start::Root(layer) => chain.root(layer),
                Start::Held(index) => self.held[index].descriptor.as_fd(),
            };
            let opened = match open_below(from, &self.chunk, self.flags) {
                // O_NOATIME is for the owner only; on an ID-mapped mount even
                // CAP_FOWNER may not reach him.
                Err(Errno::PERM) if self.flags.contains(OFlags::NOATIME) => {
                    self.flags.remove(OFlags::NOATIME);
                    open_below(from, &self.chunk, self.flags)?
                }
                other => other?,
            };
            at = Start::Held(self.keep(end, opened));
        }
        Ok(match at {
            Start::Root(layer) => chain.root(layer),
            Start::Held(index) => {
                self.clock += 1;
                self.held[index].used = self.clock;
                self.held[index].descriptor.as_fd()
            }
        })
    }

    fn keep(&mut self, directory: u32, descriptor: OwnedFd) -> usize {
        self.clock += 1;
        let held = Held {
            directory,
            descriptor,
            used: self.clock,
        };
        if self.held.len() < self.capacity {
            self.held.push(held);
            return self.held.len() - 1;
        }
        let oldest = (0..self.held.len())
            .min_by_key(|&index| self.held[index].used)
            .unwrap_or(0);
        self.held[oldest] = held;
        oldest
    }
}

/// Opens a directory some names below `from`, none of them a symlink.
fn open_below(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    if !path.contains(&b'/') {
        return rustix::fs::openat(from, path, flags, Mode::empty());
    }
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(from, path, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, or where a seccomp filter does not know it.
        Err(Errno::NOSYS | Errno::PERM) => open_stepwise(from, path, flags),
        other => other,
    }
}

fn open_stepwise(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let pass = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    let mut names = path.split(|&byte| byte == b'/').peekable();
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() { pass } else { flags };
        let below = at.as_ref().map_or(from, AsFd::as_fd);
        at = Some(rustix::fs::openat(below, name, flags, Mode::empty())?);
    }
    at.ok_or(Errno::NOENT)
}
