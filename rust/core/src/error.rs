//! Every way in which a build can fail, each with the path and the numbers
//! that locate the fault and, in its text, what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A path that could not be read, and why.
#[derive(Debug)]
pub struct Unreadable {
    /// The host path.
    pub path: PathBuf,
    /// What the kernel answered.
    pub source: io::Error,
}

/// Why an image cannot be grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowFault {
    /// It has to be unmounted or repaired before.
    Unclean,
    /// It contradicts itself.
    Unsound,
    /// It has a feature under which growing is another matter.
    Unsupported,
}

/// A failed build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a host path failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: "open", "read", "write".
        action: &'static str,
        /// The host path.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },

    /// Paths of the layers that cannot be read; all of them, found before
    /// anything is written.
    #[error("{}", unreadable_text(paths, *more))]
    Unreadable {
        /// The first of them, in path order.
        paths: Vec<Unreadable>,
        /// How many more there are.
        more: usize,
    },

    /// A layer's overlay marks say what the kernel itself answers with an
    /// error (a redirect with "..", metacopy without data, ...).
    #[error("{}: {reason}; the kernel refuses this layer as well: re-create it from its image", path.display())]
    CorruptLayer {
        /// The host path that bears the mark.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Something is mounted inside a layer.
    #[error("{}: something is mounted here and hides what belongs to the tree; unmount it", path.display())]
    MountedOver {
        /// The mount point.
        path: PathBuf,
    },

    /// An image that no kernel would show, or not whole.
    #[error("{}: {reason}; `layermelt check` and e2fsck tell more", path.display())]
    CorruptImage {
        /// The image.
        path: PathBuf,
        /// What is wrong, with the inode or the path in the image.
        reason: String,
    },

    /// A file changed between the scan of its layer and the copy of its data.
    #[error("{}: was written to meanwhile ({reason}); try again when nothing writes to it", path.display())]
    LayerChanged {
        /// The host path.
        path: PathBuf,
        /// What differs.
        reason: String,
    },

    /// Something an ext4 image (of this profile) cannot hold.
    #[error("{path}: {reason}")]
    Unrepresentable {
        /// The path in the image, lossily decoded for display.
        path: String,
        /// What it is and what to do.
        reason: String,
    },

    /// A path for an injected file that cannot be resolved inside the image.
    #[error("cannot put a file at {path}: {reason}")]
    Injection {
        /// The wished path in the image.
        path: String,
        /// Why not.
        reason: String,
    },

    /// An agent that the image's kernel could not start.
    #[error("the agent {path} {reason} (or have it put in unchecked)")]
    Agent {
        /// The host path of the agent, or its path in the image.
        path: String,
        /// What is the matter and what to do.
        reason: String,
    },

    /// The wished size does not hold the tree.
    #[error("an image of {given} bytes is too small: this tree needs {needed} bytes; give a size of at least that, or \"auto\"")]
    TooSmall {
        /// The wished size in bytes.
        given: u64,
        /// The least size that is enough, in bytes.
        needed: u64,
    },

    /// An image that cannot be grown as it is.
    #[error("{}: {reason}", path.display())]
    NotGrown {
        /// The image.
        path: PathBuf,
        /// Of which kind the obstacle is.
        kind: GrowFault,
        /// What it is and what to do.
        reason: String,
    },

    /// Growing an image failed when it could not be undone any more.
    #[error("cannot {action} {}: {source}; {state}", path.display())]
    HalfGrown {
        /// What was being done, as a verb.
        action: &'static str,
        /// The image.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
        /// What the image is now and what to do.
        state: &'static str,
    },

    /// An option that no image can have.
    #[error("invalid {option}: {reason}")]
    InvalidOption {
        /// The option's name as the user knows it.
        option: &'static str,
        /// What is wrong and what is expected.
        reason: String,
    },

    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For `map_err` on a system call: names what was done to which path.
    pub fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source: source.into(),
        }
    }
}

fn unreadable_text(paths: &[Unreadable], more: usize) -> String {
    let mut text = String::from(
        "these paths cannot be read (reading layers owned by root needs root or CAP_DAC_READ_SEARCH):",
    );
    for one in paths {
        text.push_str(&format!("\n  {}: {}", one.path.display(), one.source));
    }
    if more > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}
