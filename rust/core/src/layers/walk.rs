//! Ways to a layer's directories by descriptor, whatever their depth, with a
//! bounded number of descriptors open.
//!
//! A directory is known by a number; who is above it tells a [`Lineage`]. A
//! [`Walker`] keeps descriptors of directories above the one it used last, and
//! reaches another directory from the nearest one above that it still has, in
//! as few calls as `PATH_MAX` allows. Directories are asked for depth first, so
//! what is not above the wanted one is done with. On a long way down
//! descriptors are kept at the half, the half of the rest, and so on: coming
//! back up a tree of any depth then costs each directory a few names only.
//! Symlinks are refused at every step.

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

/// From here on a way down is halved.
const LONG: usize = 32;

/// One thread's open directories.
#[derive(Debug)]
pub(super) struct Walker {
    /// Each lies above the next one.
    held: Vec<Held>,
    capacity: usize,
    flags: OFlags,
    /// The layer of the wanted directory.
    layer: usize,
    /// The way down from the last of `held` (or the layer's root, if there is
    /// none), last step first.
    steps: Vec<Step>,
    names: Vec<u8>,
    chunk: Vec<u8>,
}

#[derive(Debug)]
struct Held {
    directory: u32,
    layer: usize,
    descriptor: OwnedFd,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    directory: u32,
    start: usize,
    len: usize,
}

impl Walker {
    /// A walker that keeps at most `capacity` descriptors (and opens one more),
    /// with `flags` (`RDONLY` to list them, `PATH` to pass through).
    pub(super) fn new(capacity: usize, flags: OFlags) -> Self {
        Self {
            held: Vec::new(),
            capacity: capacity.max(4),
            flags: flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            layer: 0,
            steps: Vec::new(),
            names: Vec::new(),
            chunk: Vec::new(),
        }
    }

    /// Finds the way to `directory`. No system call but `close` is made, so
    /// that it may be done while a lock on the lineage is held.
    pub(super) fn route(&mut self, directory: u32, lineage: &impl Lineage) {
        self.steps.clear();
        self.names.clear();
        let mut at = directory;
        loop {
            if let Some(index) = self.held.iter().rposition(|held| held.directory == at) {
                self.layer = self.held[index].layer;
                self.held.truncate(index + 1);
                return;
            }
            match lineage.above(at) {
                Above::Root(layer) => {
                    self.layer = layer;
                    self.held.clear();
                    return;
                }
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
        }
    }

    /// Goes the way that [`Self::route`] found.
    pub(super) fn go<'a>(&'a mut self, chain: &'a Chain) -> io::Result<BorrowedFd<'a>> {
        loop {
            // The one above the wanted directory is kept as well: the next
            // wanted one is likely to be its sibling.
            let leave = match self.steps.len() {
                0 => break,
                1 => 0,
                long if long > LONG => long / 2,
                _ => 1,
            };
            let directory = self.steps[leave].directory;
            let descriptor = self.descend(chain, leave)?;
            if self.held.len() >= self.capacity {
                self.thin();
            }
            self.held.push(Held {
                directory,
                layer: self.layer,
                descriptor,
            });
        }
        Ok(match self.held.last() {
            None => chain.root(self.layer),
            Some(held) => held.descriptor.as_fd(),
        })
    }

    /// Drops every second one of the upper half: what is further up is needed
    /// less often.
    fn thin(&mut self) {
        let half = self.held.len() / 2;
        let mut at = 0;
        self.held.retain(|_| {
            at += 1;
            at > half || at % 2 == 0
        });
    }

    /// Goes down until `leave` steps are left.
    fn descend(&mut self, chain: &Chain, leave: usize) -> io::Result<OwnedFd> {
        let mut opened: Option<OwnedFd> = None;
        while self.steps.len() > leave {
            self.chunk.clear();
            while let Some(&step) = self.steps.last().filter(|_| self.steps.len() > leave) {
                if !self.chunk.is_empty() {
                    if self.chunk.len() + 1 + step.len > CHUNK {
                        break;
                    }
                    self.chunk.push(b'/');
                }
                self.chunk
                    .extend_from_slice(&self.names[step.start..step.start + step.len]);
                self.steps.pop();
            }
            let from = match (&opened, self.held.last()) {
                (Some(opened), _) => opened.as_fd(),
                (None, Some(held)) => held.descriptor.as_fd(),
                (None, None) => chain.root(self.layer),
            };
            let next = match open_below(from, &self.chunk, self.flags) {
                // O_NOATIME is for the owner only; on an ID-mapped mount even
                // CAP_FOWNER may not reach him.
                Err(Errno::PERM) if self.flags.contains(OFlags::NOATIME) => {
                    self.flags.remove(OFlags::NOATIME);
                    open_below(from, &self.chunk, self.flags)?
                }
                other => other?,
            };
            opened = Some(next);
        }
        opened.ok_or(Errno::NOENT)
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
