//! For tests: a store whose files are other ones by the time they were read.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{ContentStore, Opened, Opener};
use crate::error::{Error, Result};
use crate::tree::{ContentId, Tree};

/// Gives out the file of that path, whatever content is asked for.
pub(crate) struct Changing<'a>(pub(crate) &'a Path);

impl ContentStore for Changing<'_> {
    fn opener<'a>(&'a self, _tree: &'a Tree) -> Box<dyn Opener + 'a> {
        Box::new(Changing(self.0))
    }
}

impl Opener for Changing<'_> {
    fn open(&mut self, _content: ContentId) -> Result<Opened<'_>> {
        let file = std::fs::File::open(self.0).map_err(Error::io("open", self.0))?;
        Ok(Opened::File(file.into()))
    }

    fn still_same(&self, _content: ContentId, _size: u64, _file: &OwnedFd) -> Result<()> {
        Err(Error::LayerChanged {
            path: self.0.to_path_buf(),
            reason: "it changed".into(),
        })
    }

    fn path(&self, _content: ContentId) -> PathBuf {
        self.0.to_path_buf()
    }
}
