//! Digests: of a file's data, of a layer with all its marks, of a chain; what
//! tells without reading data that a chain did not change; and the path key of
//! older agents.
//!
//! All are BLAKE3 with a context of their own each (`derive_key` mode), so that
//! no digest of one kind can pass for one of another. The forms are part of the
//! cache's format: a change of one is a new context string.

mod data;
mod layer;
mod path_key;
mod stat;

pub use data::file_digest;
pub use layer::{chain_digest, chain_of, layer_digest};
pub use path_key::path_key;
pub use stat::{layer_fingerprint, stat_fingerprint, Fingerprint};

/// What the bytes of an image hang on beside its input. It is part of every
/// cache key and is raised whenever the same input makes other bytes than
/// before: a test with a golden image says when.
pub const FORMAT_EPOCH: u32 = 1;

/// A digest.
pub type Digest = [u8; 32];

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
