//! Reads whatever holds a tree: a chain of layers, a plain directory, an image.

mod attributes;
mod files;
mod image;

use std::path::PathBuf;

use crate::control::Control;
use crate::diff::Contents;
use crate::error::Result;
use crate::layers::{self, MergeOptions};
use crate::tree::Tree;

/// What holds a tree.
#[derive(Clone, Debug)]
pub enum Source {
    /// Layers, base first, that are merged.
    Chain {
        /// Their directories.
        layers: Vec<PathBuf>,
        /// How they are to be understood.
        options: MergeOptions,
    },
    /// A directory, as the kernel shows it.
    Directory(PathBuf),
    /// A file or block device with an ext4 (or ext2, ext3) of any origin.
    Image(PathBuf),
}

/// A tree with the way to its files' bytes.
pub struct Loaded {
    /// What is in it.
    pub tree: Tree,
    /// The way to the bytes.
    pub files: Box<dyn Contents>,
    /// What the user should know: each a full sentence with its path.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("entries", &self.tree.counts().entries)
            .finish_non_exhaustive()
    }
}

/// Reads all of a tree but its files' bytes.
///
/// # Errors
/// When something cannot be read or makes no sense, with its path.
pub fn load(source: &Source, threads: usize, control: &Control) -> Result<Loaded> {
    match source {
        Source::Chain { layers, options } => {
            let (tree, files, warnings) =
                layers::merge(layers, *options, threads, control, |_| {})?;
            Ok(Loaded {
                tree,
                files: Box::new(files),
                warnings,
            })
        }
        Source::Directory(path) => {
            let (tree, files) = layers::read_directory(path, threads, control)?;
            Ok(Loaded {
                tree,
                files: Box::new(files),
                warnings: Vec::new(),
            })
        }
        Source::Image(path) => {
            let (tree, files) = image::load(path, control)?;
            Ok(Loaded {
                tree,
                files: Box::new(files),
                warnings: Vec::new(),
            })
        }
    }
}
