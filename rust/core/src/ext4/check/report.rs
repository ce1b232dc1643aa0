//! What a check tells.

use crate::ext4::read::features;
use crate::ext4::read::superblock::{Journal, Superblock};

/// At most as many problems are told one by one: a file of garbage can have
/// millions of them.
const MAX_PROBLEMS: usize = 100;

/// Something that is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of fault it is, for machines: "bad-magic", "group-checksum".
    pub code: &'static str,
    /// A sentence with the place and the numbers.
    pub text: String,
}

/// What an image says about itself, and what is wrong with it. Without a magic
/// number all but `size` and `problems` is zero.
#[derive(Clone, Debug, Default)]
pub struct ImageReport {
    /// Size of the file or device in bytes.
    pub size: u64,
    /// What is wrong: empty for a sound image.
    pub problems: Vec<Problem>,
    /// How many further problems are not in `problems`.
    pub more_problems: u64,
    /// What was not looked at, though it is there: no problem, but not nothing.
    pub notes: Vec<String>,
    /// `s_uuid`
    pub uuid: [u8; 16],
    /// `s_volume_name`, up to its first NUL.
    pub label: Vec<u8>,
    /// Block size in bytes, 0 when it is none.
    pub block_size: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Free ones of them.
    pub free_blocks: u64,
    /// Inodes of the file system.
    pub inodes: u32,
    /// Free ones of them.
    pub free_inodes: u32,
    /// Size of an inode in bytes.
    pub inode_size: u16,
    /// Block groups, 0 when the geometry is senseless.
    pub groups: u32,
    /// The features by their names in `dumpe2fs`.
    pub features: Vec<String>,
    /// Where the journal is.
    pub journal: Journal,
    /// "clean", or what is not, as `dumpe2fs` says it.
    pub state: String,
}

impl ImageReport {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn problem(&mut self, code: &'static str, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { code, text });
        } else {
            self.more_problems += 1;
        }
    }

    /// Whether all descriptors could be read and name places that there are.
    pub(super) fn groups_are_placed(&self) -> bool {
        self.more_problems == 0
            && !self
                .problems
                .iter()
                .any(|problem| matches!(problem.code, "group-position" | "truncated"))
    }

    pub(super) fn describe(&mut self, sb: &Superblock) {
        self.uuid = sb.s_uuid;
        let end = sb.s_volume_name.iter().position(|&byte| byte == 0);
        self.label = sb.s_volume_name[..end.unwrap_or(16)].to_vec();
        self.block_size = sb.block_size().unwrap_or(0);
        self.blocks = sb.blocks_count;
        self.free_blocks = sb.free_blocks_count;
        self.inodes = sb.s_inodes_count;
        self.free_inodes = sb.s_free_inodes_count;
        self.inode_size = sb.s_inode_size;
        self.features = features::names(sb);
        self.journal = sb.journal();
        self.state = sb.state_text();
    }
}
