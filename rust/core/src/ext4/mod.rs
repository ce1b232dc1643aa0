//! The ext4 file system: its on-disk nouns, the plan of an image, the writing
//! of a plan, and the check of an image.

pub mod check;
pub mod format;
pub mod plan;
pub mod write;
