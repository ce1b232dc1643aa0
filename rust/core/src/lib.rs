//! Merges a chain of container layers by the kernel's overlayfs rules and
//! writes the result as one ext4 image.
//!
//! One direction: [`layers`] -> [`tree`] -> [`ext4::plan`] -> [`ext4::write`].
//! `tree` knows no ext4 and `ext4` knows no overlay. [`build`] is the way of
//! one build through all of them. Nothing in here knows Python.

pub mod agent;
pub mod blockio;
pub mod build;
pub mod control;
pub mod diff;
pub mod digest;
pub mod error;
pub mod ext4;
pub mod layers;
pub mod load;
mod sized;
pub mod sys;
pub mod tree;
mod workers;

pub use error::{Error, Result};
