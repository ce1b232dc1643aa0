//! Compares the bytes of files, with several threads over one queue.
//!
//! A large file is worked on by all of them, portion by portion; what lies
//! behind the first difference that is known is left out. Where both files have
//! a hole nothing is read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::content::Reader;
use super::Side;
use crate::control::Control;
use crate::error::Result;
use crate::tree::ContentId;
use crate::workers;

/// A thread takes work for so many bytes at a time.
const PORTION: u64 = 4 << 20;
/// But not more files than this.
const PORTION_FILES: usize = 128;
/// Bytes that are read at once: both files' fit into a processor's own cache.
const STEP: usize = 128 << 10;

/// Two files of the same size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) contents: [ContentId; 2],
    pub(super) size: u64,
}

/// The first byte that differs, by the pair's place.
pub(super) struct Results(Vec<AtomicU64>);

const EQUAL: u64 = u64::MAX;

impl Results {
    pub(super) fn offset(&self, pair: usize) -> Option<u64> {
        let offset = self.0.get(pair)?.load(Ordering::Relaxed);
        (offset != EQUAL).then_some(offset)
    }
}

/// A stretch of work: whole files, or a part of one large file.
enum Portion {
    Files(std::ops::Range<usize>),
    Part {
        pair: usize,
        bytes: std::ops::Range<u64>,
    },
}

struct Queue<'a> {
    pairs: &'a [Pair],
    next: usize,
    /// Bytes of `pairs[next]` that were given out.
    done: u64,
}

impl Queue<'_> {
    fn take(&mut self) -> Option<Portion> {
        let pair = self.next;
        let size = self.pairs.get(pair)?.size;
        if size > PORTION {
            let start = self.done;
            let end = size.min(start.saturating_add(PORTION));
            self.done = end;
            if end == size {
                self.skip(pair);
            }
            return Some(Portion::Part {
                pair,
                bytes: start..end,
            });
        }
        let mut bytes = 0;
        while let Some(next) = self.pairs.get(self.next) {
            let full = bytes >= PORTION || self.next - pair >= PORTION_FILES;
            if next.size > PORTION || full {
                break;
            }
            bytes += next.size;
            self.next += 1;
        }
        Some(Portion::Files(pair..self.next))
    }

    /// The rest of a large file is for nothing.
    fn skip(&mut self, pair: usize) {
        if self.next == pair {
            self.next += 1;
            self.done = 0;
        }
    }

    /// The next part of a large file begins at the earliest here.
    fn go_to(&mut self, pair: usize, at: u64) {
        if self.next == pair {
            if at >= self.pairs[pair].size {
                self.skip(pair);
            } else {
                self.done = self.done.max(at);
            }
        }
    }
}

/// Compares all pairs.
pub(super) fn compare(
    a: Side<'_>,
    b: Side<'_>,
    pairs: &[Pair],
    threads: usize,
    control: &Control,
) -> Result<Results> {
    let results = Results(pairs.iter().map(|_| AtomicU64::new(EQUAL)).collect());
    let queue = Mutex::new(Queue {
        pairs,
        next: 0,
        done: 0,
    });
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    workers::run(threads.max(1), |failed| {
        let mut worker = Worker {
            readers: [a.files.reader(a.tree), b.files.reader(b.tree)],
            buffers: [vec![0; STEP], vec![0; STEP]],
            control,
        };
        while !failed.load(Ordering::Relaxed) {
            control.check()?;
            let portion = lock().take();
            let Some(portion) = portion else { break };
            match portion {
                Portion::Files(range) => {
                    for at in range {
                        let size = pairs[at].size;
                        worker.part(&pairs[at], 0..size, &results.0[at])?;
                        control.advance(size);
                    }
                }
                Portion::Part { pair, bytes } => {
                    let length = bytes.end - bytes.start;
                    let next = worker.part(&pairs[pair], bytes, &results.0[pair])?;
                    lock().go_to(pair, next);
                    control.advance(length);
                }
            }
        }
        Ok(())
    })?;
    Ok(results)
}

struct Worker<'a> {
    readers: [Box<dyn Reader + 'a>; 2],
    buffers: [Vec<u8>; 2],
    control: &'a Control,
}

impl Worker<'_> {
    /// Compares a part of a pair. Returns up to where nothing needs to be looked
    /// at any more: the end of the part, or of a hole of both that goes on
    /// behind it, or of the files when they differ.
    fn part(&mut self, pair: &Pair, bytes: std::ops::Range<u64>, first: &AtomicU64) -> Result<u64> {
        if first.load(Ordering::Relaxed) < bytes.start {
            return Ok(pair.size);
        }
        for (reader, content) in self.readers.iter_mut().zip(pair.contents) {
            reader.open(content, pair.size)?;
        }
        let [a, b] = &self.readers;
        let result = match (a.identity(), b.identity()) {
            // One file of the host is in both trees.
            (Some(a), Some(b)) if a == b => Ok(pair.size),
            _ => self.bytes(pair.size, bytes, first),
        };
        for reader in &mut self.readers {
            reader.close()?;
        }
        result
    }

    fn bytes(&mut self, size: u64, bytes: std::ops::Range<u64>, first: &AtomicU64) -> Result<u64> {
        let mut at = bytes.start;
        while at < bytes.end {
            self.control.check()?;
            let [a, b] = &mut self.readers;
            let data = a.next_data(at)?.min(b.next_data(at)?);
            if data >= bytes.end {
                return Ok(data);
            }
            at = data;
            // OK to convert: not above STEP.
            let len = (bytes.end - at).min(STEP as u64) as usize;
            for (reader, buffer) in self.readers.iter_mut().zip(&mut self.buffers) {
                reader.read(at, &mut buffer[..len])?;
            }
            if let Some(offset) = difference(&self.buffers[0][..len], &self.buffers[1][..len]) {
                first.fetch_min(at + offset as u64, Ordering::Relaxed);
                return Ok(size);
            }
            at += len as u64;
            if first.load(Ordering::Relaxed) < at {
                return Ok(size);
            }
        }
        Ok(at)
    }
}

/// Where two buffers of the same length begin to differ.
fn difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b)
}
