//! The ext4 file system: its on-disk nouns, the plan of an image, the writing
//! of a plan, the decoding of an image, and its check.

pub mod check;
pub mod format;
pub mod grow;
pub mod plan;
pub mod read;
pub mod write;
