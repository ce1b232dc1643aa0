//! Reads all layers' directories, with several threads over one queue.
//!
//! The queue is a stack, so that a thread mostly goes on below the directory
//! whose descriptor it still has. A large directory is listed by one thread,
//! and then its names are looked at by all of them in batches.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::access::Access;
use super::chain::Chain;
use super::entry::{Entry, Flags};
use super::inspect::Inspector;
use super::list::{self, Listing};
use super::scanned::{Directories, Run, Scan, Shelf};
use super::unreadable::Unreadables;
use super::walk::Walker;
use super::xattrs::{Reader, Way};
use super::MergeOptions;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tree::XattrSets;

/// A directory of more than twice this many names is looked at in batches of
/// so many: some milliseconds of work.
const BATCH: usize = 2048;

/// Descriptors that all threads together may keep open. The usual limit is
/// 1,024 for the whole process, and 500 layers take 500.
const DESCRIPTORS: usize = 256;

/// What the threads share.
pub(super) struct Shared<'a> {
    pub(super) chain: &'a Chain,
    pub(super) options: MergeOptions,
    pub(super) access: &'a Access,
    control: &'a Control,
    state: Mutex<State>,
    wake: Condvar,
    pub(super) xattrs: Mutex<XattrSets>,
    pub(super) devices: Mutex<Vec<u64>>,
    /// What cannot be read, by the directory it is (in).
    unreadable: Mutex<HashMap<u32, Unreadables>>,
}

#[derive(Default)]
struct State {
    queue: Vec<Task>,
    busy: usize,
    ended: bool,
    failed: Option<Error>,
    directories: Directories,
    roots: Vec<Option<Entry>>,
}

enum Task {
    /// List this directory, which was (`st_dev`, `st_ino`).
    Directory(u32, u64, u64),
    /// Look at some names of a large directory.
    Batch(u32, Arc<Listing>, usize),
}

/// Locks, also after a panic elsewhere: that panic is what is then reported.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Scans all layers. `way` is how attributes are read; `None`: the best.
pub(super) fn scan(
    chain: &Chain,
    options: MergeOptions,
    access: &Access,
    way: Option<Way>,
    threads: usize,
    control: &Control,
) -> Result<Scan> {
    let mut state = State::default();
    for layer in 0..chain.layers() {
        let number = u32::try_from(layer).map_err(|_| too_large())?;
        let directory = state
            .directories
            .add(number, None, b"")
            .ok_or_else(too_large)?;
        let stat = chain.stat(layer);
        state
            .queue
            .push(Task::Directory(directory, stat.st_dev, stat.st_ino));
        state.roots.push(None);
    }
    let shared = Shared {
        chain,
        options,
        access,
        control,
        state: Mutex::new(state),
        wake: Condvar::new(),
        xattrs: Mutex::default(),
        devices: Mutex::default(),
        unreadable: Mutex::default(),
    };
    let way = way.unwrap_or_else(|| Way::probe(chain.root(0)));
    let shared_ref = &shared;
    let found = std::thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            // Never in the calling thread: a worker may change its working
            // directory.
            let worker = move || work(shared_ref, way, threads);
            match std::thread::Builder::new().spawn_scoped(scope, worker) {
                Ok(worker) => workers.push(worker),
                // Some are enough.
                Err(_) if !workers.is_empty() => break,
                Err(error) => {
                    return Err(Error::io("start a thread to read", chain.path(0))(error));
                }
            }
        }
        let join = |worker: std::thread::ScopedJoinHandle<'_, Found>| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        Ok(workers.into_iter().map(join).collect::<Vec<_>>())
    })?;
    let state = shared
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.failed {
        return Err(error);
    }
    let unreadable = shared
        .unreadable
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if state.roots.iter().any(Option::is_none) {
        let mut all = Unreadables::default();
        unreadable.values().for_each(|some| all.absorb(some));
        all.into_result()?;
    }
    let xattrs = shared
        .xattrs
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let mut scan = assemble(found, state.directories, state.roots, xattrs);
    scan.unreadable = unreadable;
    Ok(scan)
}

/// What one worker brings.
type Found = (Shelf, Vec<Part>);

fn work(shared: &Shared<'_>, way: Way, threads: usize) -> Found {
    match Reader::new(way, shared.options) {
        Ok(reader) => Worker::new(shared, reader, threads).run(),
        Err(error) => {
            let path = shared.chain.path(0);
            let mut state = lock(&shared.state);
            state.ended = true;
            state
                .failed
                .get_or_insert_with(|| Error::io("read attributes in", path)(error));
            shared.wake.notify_all();
            Found::default()
        }
    }
}

fn assemble(
    found: Vec<Found>,
    directories: Directories,
    roots: Vec<Option<Entry>>,
    xattrs: XattrSets,
) -> Scan {
    let mut shelves = Vec::with_capacity(found.len());
    let mut runs = vec![Run::default(); directories.len()];
    let mut large: HashMap<u32, Vec<(usize, Run)>> = HashMap::new();
    for (shelf, (shelf_entries, parts)) in (0u32..).zip(found) {
        shelves.push(shelf_entries);
        for part in parts {
            let run = Run {
                shelf,
                start: part.entries.start,
                count: part.entries.end - part.entries.start,
            };
            match part.batch {
                None => runs[part.directory as usize] = run,
                Some(batch) => large.entry(part.directory).or_default().push((batch, run)),
            }
        }
    }
    let mut parts = HashMap::with_capacity(large.len());
    for (directory, mut batches) in large {
        batches.sort_unstable_by_key(|(batch, _)| *batch);
        let mut in_order = batches.into_iter().map(|(_, run)| run);
        runs[directory as usize] = in_order.next().unwrap_or_default();
        parts.insert(directory, in_order.collect());
    }
    Scan {
        shelves,
        directories,
        // OK to flatten: every root was scanned, or the scan failed.
        roots: roots.into_iter().flatten().collect(),
        runs,
        parts,
        xattrs,
        unreadable: HashMap::new(),
    }
}

/// A stretch of a worker's shelf: a directory, or a batch of a large one.
struct Part {
    directory: u32,
    batch: Option<usize>,
    entries: Range<u32>,
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    walker: Walker,
    listing: Listing,
    buffer: list::Buffer,
    inspector: Inspector<'a>,
    parts: Vec<Part>,
}

/// Wakes the others when a worker panics: they would wait for its work.
struct Ended<'a>(&'a Shared<'a>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).ended = true;
            self.0.wake.notify_all();
        }
    }
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>, reader: Reader, threads: usize) -> Self {
        let mut flags = OFlags::RDONLY;
        flags.set(OFlags::NOATIME, shared.access.noatime);
        Self {
            shared,
            walker: Walker::new((DESCRIPTORS / threads).clamp(8, 64), flags),
            listing: Listing::default(),
            buffer: list::buffer(),
            inspector: Inspector::new(shared, reader),
            parts: Vec::new(),
        }
    }

    fn run(mut self) -> Found {
        let _guard = Ended(self.shared);
        while let Some(task) = self.next() {
            let result = self.shared.control.check().and_then(|()| match task {
                Task::Directory(directory, device, inode) => {
                    self.directory(directory, device, inode)
                }
                Task::Batch(directory, listing, batch) => self.batch(directory, &listing, batch),
            });
            let mut state = lock(&self.shared.state);
            state.busy -= 1;
            if let Err(error) = result {
                state.ended = true;
                state.failed.get_or_insert(error);
            }
            if state.ended || (state.busy == 0 && state.queue.is_empty()) {
                state.ended = true;
                self.shared.wake.notify_all();
            }
        }
        (self.inspector.shelf, self.parts)
    }

    fn next(&self) -> Option<Task> {
        let mut state = lock(&self.shared.state);
        loop {
            if state.ended {
                return None;
            }
            if let Some(task) = state.queue.pop() {
                state.busy += 1;
                return Some(task);
            }
            state = self
                .shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn directory(&mut self, directory: u32, device: u64, inode: u64) -> Result<()> {
        let shared = self.shared;
        let (layer, is_root) = {
            let state = lock(&shared.state);
            self.walker.route(directory, &state.directories);
            let this = state.directories.get(directory);
            (this.layer, this.parent == directory)
        };
        let opened = match self.walker.go(shared.chain) {
            Ok(opened) => opened,
            Err(error) => return shared.failed("open", directory, b"", error),
        };
        let now = match rustix::fs::fstat(opened) {
            Ok(now) => now,
            Err(error) => return shared.failed("stat", directory, b"", error),
        };
        if (now.st_dev, now.st_ino) != (device, inode) {
            return Err(shared.changed(directory, b"", "another directory has its name"));
        }
        let control = shared.control;
        let listed = self.listing.read(opened, &mut self.buffer, || {
            control.check().map_err(ListError::Stopped)
        });
        match listed {
            Ok(()) => {}
            Err(ListError::Stopped(error)) => return Err(error),
            Err(ListError::System(error)) => {
                return shared.failed("list", directory, b"", error);
            }
        }
        self.listing.sort();
        if is_root {
            let entry = self.inspector.root(opened, directory, &now)?;
            lock(&shared.state).roots[layer as usize] = Some(entry);
        }
        let count = self.listing.len();
        if count > 2 * BATCH {
            let listing = Arc::new(std::mem::take(&mut self.listing));
            let batches = (0..count.div_ceil(BATCH)).rev();
            let mut state = lock(&shared.state);
            state
                .queue
                .extend(batches.map(|batch| Task::Batch(directory, Arc::clone(&listing), batch)));
            shared.wake.notify_all();
            return Ok(());
        }
        let entries =
            self.inspector
                .inspect(opened, directory, layer as usize, &self.listing, 0..count)?;
        self.parts.push(Part {
            directory,
            batch: None,
            entries,
        });
        self.found(directory, layer)
    }

    fn batch(&mut self, directory: u32, listing: &Listing, batch: usize) -> Result<()> {
        let shared = self.shared;
        let layer = {
            let state = lock(&shared.state);
            self.walker.route(directory, &state.directories);
            state.directories.get(directory).layer
        };
        let opened = match self.walker.go(shared.chain) {
            Ok(opened) => opened,
            Err(error) => return shared.failed("open", directory, b"", error),
        };
        let start = batch * BATCH;
        let range = start..listing.len().min(start + BATCH);
        let entries = self
            .inspector
            .inspect(opened, directory, layer as usize, listing, range)?;
        self.parts.push(Part {
            directory,
            batch: Some(batch),
            entries,
        });
        self.found(directory, layer)
    }

    /// Makes the directories that were just found known, and queues them.
    fn found(&mut self, directory: u32, layer: u32) -> Result<()> {
        self.shared.control.advance(self.inspector.take_count());
        let opaque = std::mem::take(&mut self.inspector.opaque);
        if self.inspector.children.is_empty() && !opaque {
            return Ok(());
        }
        let mut state = lock(&self.shared.state);
        if opaque {
            state.directories.get_mut(directory).opaque = true;
        }
        let shelf = &mut self.inspector.shelf;
        // The last pushed is the next taken: first names first.
        for child in self.inspector.children.drain(..).rev() {
            let entry = shelf.entries[child.index as usize];
            let number = state
                .directories
                .add(layer, Some(directory), shelf.name(&entry))
                .ok_or_else(too_large)?;
            shelf.entries[child.index as usize].link = number;
            state
                .queue
                .push(Task::Directory(number, child.device, entry.inode));
        }
        self.shared.wake.notify_all();
        Ok(())
    }
}

enum ListError {
    System(Errno),
    Stopped(Error),
}

impl From<Errno> for ListError {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

impl Shared<'_> {
    /// What an error of the kernel on `name` in `directory` means: no
    /// permission is collected and the scan goes on, for it may be hidden by a
    /// higher layer; anything else ends it.
    pub(super) fn failed(
        &self,
        action: &'static str,
        directory: u32,
        name: &[u8],
        error: Errno,
    ) -> Result<()> {
        match error {
            Errno::ACCESS | Errno::PERM => {
                let path = lock(&self.state)
                    .directories
                    .path(self.chain, directory, name);
                let mut unreadable = lock(&self.unreadable);
                unreadable.entry(directory).or_default().add(path, error);
                Ok(())
            }
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NODATA => {
                Err(self.changed(directory, name, "it vanished while its layer was read"))
            }
            _ => {
                let path = lock(&self.state)
                    .directories
                    .path(self.chain, directory, name);
                Err(Error::io(action, path)(error))
            }
        }
    }

    /// An error for what is not as it was a moment ago.
    pub(super) fn changed(&self, directory: u32, name: &[u8], reason: &str) -> Error {
        Error::LayerChanged {
            path: lock(&self.state)
                .directories
                .path(self.chain, directory, name),
            reason: reason.into(),
        }
    }

    /// An error for what the kernel's overlayfs would not take either.
    pub(super) fn corrupt(&self, directory: u32, name: &[u8], reason: String) -> Error {
        Error::CorruptLayer {
            path: lock(&self.state)
                .directories
                .path(self.chain, directory, name),
            reason,
        }
    }
}

pub(super) fn too_large() -> Error {
    Error::Unrepresentable {
        path: "/".into(),
        reason: "the layers hold more than 4,294,967,295 names, or more than 4 GiB of them".into(),
    }
}

/// An entry for a name that only hides.
pub(super) const fn whiteout(name: u32, name_len: u8) -> Entry {
    Entry {
        inode: 0,
        size: 0,
        seconds: 0,
        nanoseconds: 0,
        uid: 0,
        gid: 0,
        name,
        xattrs: 0,
        link: super::entry::HIDDEN,
        mode: 0o020_000,
        device: 0,
        name_len,
        flags: Flags::WHITEOUT,
        inode_flags: crate::tree::InodeFlags::empty(),
    }
}
