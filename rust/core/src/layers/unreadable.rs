//! Collects what cannot be read, so that the user hears of all of it at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Error, Result, Unreadable};

/// More than this many paths help nobody.
const SHOWN: usize = 50;

/// The first paths in path order, and how many more there are: the same
/// whatever the order in which threads find them.
#[derive(Debug, Default)]
pub(super) struct Unreadables {
    first: BTreeMap<PathBuf, Errno>,
    more: usize,
}

impl Unreadables {
    /// Adds one. `path` is asked for only when it may be shown.
    pub(super) fn add(&mut self, path: PathBuf, source: Errno) {
        if self.first.insert(path, source).is_none() && self.first.len() > SHOWN {
            self.first.pop_last();
            self.more += 1;
        }
    }

    /// Adds all of `other`.
    pub(super) fn absorb(&mut self, other: &Self) {
        for (path, &source) in &other.first {
            self.add(path.clone(), source);
        }
        self.more += other.more;
    }

    /// An error, if there is one.
    pub(super) fn into_result(self) -> Result<()> {
        if self.first.is_empty() {
            return Ok(());
        }
        Err(Error::Unreadable {
            paths: self
                .first
                .into_iter()
                .map(|(path, source)| Unreadable {
                    path,
                    source: source.into(),
                })
                .collect(),
            more: self.more,
        })
    }
}
