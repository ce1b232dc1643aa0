//! What an image of the profile cannot hold is found before anything is
//! placed, with the path of it.

use super::options::{ImageOptions, JournalSize, Profile};
use crate::error::{Error, Result};
use crate::ext4::format::inode::{clamp_time, device_block};
use crate::ext4::format::BlockSize;
use crate::tree::{Kind, NodeId, Tree};

/// Names an inode can have (`EXT4_LINK_MAX`), see
/// [`crate::tree::Tree::split_links`].
pub const LINK_MAX: u32 = 65_000;

/// The fewest blocks of a journal (`JBD2_MIN_JOURNAL_BLOCKS`).
pub(crate) const MIN_JOURNAL: u32 = 1024;

/// What to do where only larger blocks help, behind another advice.
pub(crate) const fn larger(block_size: BlockSize) -> &'static str {
    if block_size.bytes() < BlockSize::PAGE.bytes() {
        ", or choose a larger block size"
    } else {
        ""
    }
}

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
pub(crate) fn block_size(wished: u32) -> Result<BlockSize> {
    BlockSize::new(wished).ok_or_else(|| Error::InvalidOption {
        option: "block size",
        reason: format!("{wished} bytes; images have blocks of 1024, 2048 or 4096 bytes"),
    })
}

/// Blocks of the wished journal, if one is wished.
pub(crate) fn journal(options: &ImageOptions, block_size: BlockSize) -> Result<Option<u32>> {
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
            let blocks = block_size.blocks_of(bytes);
            let min = u64::from(MIN_JOURNAL);
            if (min..=MAX).contains(&blocks) {
                return Ok(Some(blocks as u32));
            }
            Err(Error::InvalidOption {
                option: "journal",
                reason: format!(
                    "{bytes} bytes; a journal has {} to {} bytes",
                    block_size.bytes_of(min),
                    block_size.bytes_of(MAX)
                ),
            })
        }
    }
}

/// Whether blocks can be reserved as it is wished.
pub(crate) fn reserved(options: &ImageOptions) -> Result<()> {
    if options.profile != Profile::Readonly || options.reserved == 0 {
        return Ok(());
    }
    Err(Error::InvalidOption {
        option: "reserved",
        reason: format!(
            "{} bytes; nothing is free in an image of the profile readonly, and nobody writes to it",
            options.reserved
        ),
    })
}

/// Checks every visible inode.
pub(crate) fn tree(tree: &Tree, block_size: BlockSize, warnings: &mut Vec<String>) -> Result<()> {
    // Blocks of a file are numbered with 32 bits.
    let most_bytes = block_size.bytes_of(u32::MAX.into());
    // A target and its NUL fill at most a block.
    let longest_target = block_size.size() - 1;
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
            Kind::File { size, .. } if size > most_bytes => {
                format!("a file of {size} bytes; ext4 holds files up to {most_bytes}")
            }
            Kind::Symlink(target) if target.len() > longest_target || target.is_empty() => {
                format!(
                    "a symlink of {} bytes; ext4 holds 1 to {longest_target} in blocks of {} bytes",
                    target.len(),
                    block_size.bytes()
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
        let larger_helps = matches!(node.kind, Kind::File { .. } | Kind::Symlink(_));
        let advice = if larger_helps { larger(block_size) } else { "" };
        return Err(unrepresentable(tree, id, reason, advice));
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

/// Says of a profile for old kernels what keeps them from mounting the image
/// all the same: `ea_inode` and `large_dir` are of Linux 4.13.
pub(crate) fn newer_features(
    tree: &Tree,
    block_size: BlockSize,
    outside: Option<NodeId>,
    large: Option<NodeId>,
    warnings: &mut Vec<String>,
) {
    let mut warn = |node: Option<NodeId>, what: &str, feature: &str, advice: &str| {
        warnings.extend(node.map(|node| {
            format!(
                "{}: {what} the feature {feature}: kernels before Linux 4.13 do not mount the image; \
                 {advice} in the layer{}",
                tree.display_path(node),
                larger(block_size)
            )
        }));
    };
    warn(
        outside,
        "its extended attributes need more than the inode and a block, and so",
        "ea_inode",
        "remove some",
    );
    warn(
        large,
        "it has so many names that it needs",
        "large_dir",
        "divide it",
    );
}

fn unrepresentable(tree: &Tree, node: NodeId, reason: String, advice: &str) -> Error {
    Error::Unrepresentable {
        path: tree.display_path(node),
        reason: format!("{reason}; remove it from the layer or change it there{advice}"),
    }
}
