//! Things mounted inside a layer.
//!
//! The kernel's overlayfs looks at a layer without what is mounted in it: a bind
//! mount there is no part of the layer, and what lies below it we cannot see.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The mount points of this process, or none where `/proc` is not there: in a
/// guest that has not mounted it yet nobody mounts things in layers.
pub(super) struct Mounts(Vec<PathBuf>);

impl Mounts {
    pub(super) fn read() -> Self {
        let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self(
            text.split(|&byte| byte == b'\n')
                .filter_map(mount_point)
                .collect(),
        )
    }

    /// Refuses a layer with a mount point below its root.
    pub(super) fn refuse_inside(&self, layer: &Path, root: BorrowedFd<'_>) -> Result<()> {
        // Mount points are told as paths without symlinks; so does this link.
        let link = format!("/proc/self/fd/{}", root.as_raw_fd());
        let Ok(real) = std::fs::read_link(link) else {
            return Ok(());
        };
        let inside = self
            .0
            .iter()
            .find_map(|point| point.strip_prefix(&real).ok())
            .filter(|rest| !rest.as_os_str().is_empty());
        match inside {
            None => Ok(()),
            Some(rest) => Err(Error::MountedOver {
                path: layer.join(rest),
            }),
        }
    }
}

/// The fifth field of a line of `mountinfo`, where blanks and backslashes are
/// octal escapes.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|&byte| byte == b' ').nth(4)?;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = (byte == b'\\')
            .then(|| behind.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134c\012 rw,noatime - ext3 /dev/root rw";
        let point = mount_point(line).unwrap();
        assert_eq!(point.as_os_str().as_bytes(), b"/a b\\c\n");
        assert!(mount_point(b"").is_none());
    }
}
