//! The key by which older agents name a cached image.

use std::hash::{DefaultHasher, Hash, Hasher};

/// `path.hash(&mut DefaultHasher::new())` of a `str`, as 16 lower-case hex
/// digits. The standard library promises no algorithm, but it has been
/// SipHash-1-3 with a zero key since Rust 1.13; golden values in the tests say
/// should that ever change.
#[must_use]
pub fn path_key(path: &str) -> String {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
