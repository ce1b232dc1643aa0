//! Files that do not tell how large they are.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Sees that a file which says that it is empty is. Those of /proc say so and
/// have data nevertheless: they would silently be taken for nothing.
pub(crate) fn demand_empty(file: impl AsFd, path: &Path) -> Result<()> {
    let mut byte = [0];
    let count = loop {
        match rustix::io::pread(&file, &mut byte, 0) {
            Err(Errno::INTR) => {}
            result => break result.map_err(Error::io("read", path))?,
        }
    };
    if count == 0 {
        return Ok(());
    }
    let reason =
        "it has data but says that it is empty, as files of /proc do; make a copy of it first";
    Err(Error::io("read", path)(std::io::Error::other(reason)))
}
