//! Collects what cannot be read, so that the user hears of all of it at once.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use crate::error::{Error, Result, Unreadable};

/// More than this many paths help nobody.
const SHOWN: usize = 50;

/// The first paths in path order, and how many more there are: the same
/// whatever the order in which threads find them.
#[derive(Debug, Default)]
pub(super) struct Unreadables {
    first: BTreeMap<PathBuf, io::Error>,
    more: usize,
}

impl Unreadables {
    /// Adds one. `path` is asked for only when it may be shown.
    pub(super) fn add(&mut self, path: PathBuf, source: io::Error) {
        if self.first.insert(path, source).is_none() && self.first.len() > SHOWN {
            self.first.pop_last();
            self.more += 1;
        }
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
                .map(|(path, source)| Unreadable { path, source })
                .collect(),
            more: self.more,
        })
    }
}
