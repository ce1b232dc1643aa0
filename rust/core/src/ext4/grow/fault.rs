//! Why an image is not grown.

use std::path::Path;

use crate::error::{Error, GrowFault};

/// Something has to be done to the image before.
pub(super) fn unclean(path: &Path, reason: &str) -> Error {
    fault(
        path,
        GrowFault::Unclean,
        format!("{reason}; run `e2fsck -f` on it, or mount and unmount it, and grow it then"),
    )
}

/// It contradicts itself.
pub(super) fn unsound(path: &Path, reason: String) -> Error {
    fault(
        path,
        GrowFault::Unsound,
        format!("{reason}; run `e2fsck -f` on it"),
    )
}

/// It is of a kind that is not grown here.
pub(super) fn unsupported(path: &Path, reason: &str) -> Error {
    fault(
        path,
        GrowFault::Unsupported,
        format!("{reason}, which is not grown here; use resize2fs"),
    )
}

fn fault(path: &Path, kind: GrowFault, reason: String) -> Error {
    Error::NotGrown {
        path: path.to_path_buf(),
        kind,
        reason,
    }
}
