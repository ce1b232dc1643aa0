//! Tests of the merge on real directories.
//!
//! They run as any user: without root the chains bear `user.overlay.*` marks.
//! What needs more says so on stderr when it is skipped.

mod files;
mod marks;
mod random;
mod rules;
mod scan;
mod slots;
mod support;
