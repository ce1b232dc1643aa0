//! Tests of the merge on real directories.
