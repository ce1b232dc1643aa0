//! Digests: of a file's data, of a layer with all its marks, of a chain; and
//! the path key of older agents.
//!
//! All are BLAKE3 with a context of their own each (`derive_key` mode), so that
//! no digest of one kind can pass for one of another. The forms are part of the
//! cache's format: a change of one is a new context string.

mod data;
mod layer;
mod path_key;

pub use data::file_digest;
pub use layer::{chain_digest, layer_digest};
pub use path_key::path_key;

/// A digest.
pub type Digest = [u8; 32];

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
