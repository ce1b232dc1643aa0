//! The Python binding: arguments in, the GIL released, results and errors out.
//! What the project does is in `layermelt_core`; what users see is in Python.

mod build;
mod check;
mod clone;
mod diff;
mod digest;
mod error;
mod grow;
mod watch;

use pyo3::prelude::*;

/// The core of layermelt, in Rust. Private: use the package's functions.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::build::{
        build_image, check_agent, check_agent_mounted, inspect_layers, BuildReport, Counts,
    };
    #[pymodule_export]
    use crate::check::{check_image, has_ext4_magic, ImageReport, Problem};
    #[pymodule_export]
    use crate::clone::{clone_file, CloneReport};
    #[pymodule_export]
    use crate::diff::diff_trees;
    #[pymodule_export]
    use crate::digest::{
        chain_digest, chain_of, file_digest, layer_digest, layer_fingerprint, path_key,
        stat_fingerprint,
    };
    #[pymodule_export]
    use crate::grow::{grow_file, GrowReport};

    /// Raised whenever the same input makes other bytes.
    #[pymodule_export]
    const FORMAT_EPOCH: u32 = layermelt_core::digest::FORMAT_EPOCH;

    /// The version of the whole project.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
