//! What an image of the profile cannot hold is found before anything is
//! placed, with the path of it.

use super::options::{ImageOptions, JournalSize, Profile};
use crate::error::{Error, Result};
use crate::ext4::format::inode::{clamp_time, device_block};
use crate::ext4::format::BLOCK_SIZE;
use crate::tree::{Kind, NodeId, Tree};

/// Names an inode can have (`EXT4_LINK_MAX`), see
/// [`crate::tree::Tree::split_links`].
pub const LINK_MAX: u32 = 65_000;
/// Blocks of a file are numbered with 32 bits.
const MAX_FILE_SIZE: u64 = (u32::MAX as u64) * BLOCK_SIZE as u64;
/// A target and its NUL fill at most a block.
const MAX_TARGET: usize = BLOCK_SIZE as usize - 1;

/// The label, padded.
pub(crate) fn label(label: &[u8]) -> Result<[u8; 16]> {
    let mut padded = [0; 16];
    let Some(room) = padded.get_mut(..label.len()) else {
        return Err(Error::InvalidOption {
            option: "label",
            reason: format!("{} bytes; ext4 has room for 16", label.len()),
        });
    };
    if label.contains(&0) {
        return Err(Error::InvalidOption {
            option: "label",
            reason: "it has a NUL byte".into(),
        });
    }
    room.copy_from_slice(label);
    Ok(padded)
}

/// Sees that images can have the wished block size.
pub(crate) fn block_size(wished: u32) -> Result<()> {
    if wished == BLOCK_SIZE {
        return Ok(());
    }
    Err(Error::InvalidOption {
        option: "block size",
        reason: format!("{wished} bytes; images have blocks of {BLOCK_SIZE} bytes"),
    })
}

/// Blocks of the wished journal, if one is wished.
pub(crate) fn journal(options: &ImageOptions) -> Result<Option<u32>> {
    /// `JBD2_MIN_JOURNAL_BLOCKS`
    const MIN: u64 = 1024;
    /// The most that mke2fs makes (`figure_journal_size`).
    const MAX: u64 = 10_240_000;
    if options.profile == Profile::Readonly {
        return match options.journal {
            JournalSize::Auto | JournalSize::None => Ok(Some(0)),
            JournalSize::Bytes(_) => Err(Error::InvalidOption {
                option: "journal",
                reason: "an image of the profile readonly has none".into(),
            }),
        };
    }
    match options.journal {
        JournalSize::Auto => Ok(None),
        JournalSize::None => Ok(Some(0)),
        JournalSize::Bytes(bytes) => {
            let blocks = bytes.div_ceil(u64::from(BLOCK_SIZE));
            if (MIN..=MAX).contains(&blocks) {
                return Ok(Some(blocks as u32));
            }
            Err(Error::InvalidOption {
                option: "journal",
                reason: format!(
                    "{bytes} bytes; a journal has {} to {} bytes",
                    MIN * u64::from(BLOCK_SIZE),
                    MAX * u64::from(BLOCK_SIZE)
                ),
            })
        }
    }
}

/// Checks every visible inode.
pub(crate) fn tree(tree: &Tree, warnings: &mut Vec<String>) -> Result<()> {
    let mut clamped = 0u64;
    let mut example = None;
    for (id, node) in tree.nodes() {
        if node.links == 0 && id != tree.root() {
            continue;
        }
        if clamp_time(node.metadata.mtime) != node.metadata.mtime {
            clamped += 1;
            example.get_or_insert(id);
        }
        let reason = match node.kind {
            Kind::Directory(_) => continue,
            Kind::File { size, .. } if size > MAX_FILE_SIZE => {
                format!("a file of {size} bytes; ext4 holds files up to {MAX_FILE_SIZE}")
            }
            Kind::Symlink(target) if target.len() > MAX_TARGET || target.is_empty() => {
                format!(
                    "a symlink of {} bytes; ext4 holds 1 to {MAX_TARGET}",
                    target.len()
                )
            }
            Kind::CharDevice(device) | Kind::BlockDevice(device)
                if device_block(device).is_none() =>
            {
                format!(
                    "device number {}:{}; ext4 holds 12 bits of major and 20 of minor",
                    device.major, device.minor
                )
            }
            _ if node.links > LINK_MAX => {
                format!(
                    "{} hard links; ext4 holds {LINK_MAX} of one inode",
                    node.links
                )
            }
            _ => continue,
        };
        return Err(unrepresentable(tree, id, reason));
    }
    if let Some(example) = example {
        warnings.push(format!(
            "{}: its time lies outside 1901-12-13 to 2446-05-10, which ext4 can tell, and was \
             set to the nearest that it can{}",
            tree.display_path(example),
            if clamped > 1 {
                format!(" ({} more such)", clamped - 1)
            } else {
                String::new()
            },
        ));
    }
    Ok(())
}

fn unrepresentable(tree: &Tree, node: NodeId, reason: String) -> Error {
    Error::Unrepresentable {
        path: tree.display_path(node),
        reason: format!("{reason}; remove it from the layer or change it there"),
    }
}
