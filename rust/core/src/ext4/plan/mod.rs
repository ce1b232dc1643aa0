//! The plan of an image: every inode, directory block and extent placed,
//! before a byte of data is written.
//!
//! A [`Plan`] is pure: tree and options in, places out. It is the image, told
//! by [`Plan::regions`] in ascending order; [`crate::ext4::write`] is one way
//! of reading it. The order of work is: [`numbers`] and [`directories`] say
//! how much there is, [`size`] finds a [`geometry`] that holds it by placing it
//! all ([`layout`], which takes blocks from [`allocate`]), and [`groups`]
//! counts what that leaves in each group. [`regions`] and [`encode`] then tell
//! what lies where, and its bytes.

mod allocate;
mod attributes;
mod directories;
mod encode;
mod extents;
mod geometry;
mod groups;
mod inodes;
mod layout;
mod numbers;
mod options;
mod regions;
mod run;
mod size;
mod validate;

pub use options::{ImageOptions, JournalSize, Profile, Size};
pub use regions::{Region, RegionKind, Regions};
pub use validate::LINK_MAX;

use attributes::Attributes;
use directories::{Directories, LOST_AND_FOUND_NAME};
use geometry::Geometry;
use groups::Groups;
use layout::{Layout, Layouter};
use numbers::Numbers;
use run::{Run, What};
use size::Sized;

use crate::error::Result;
use crate::ext4::format::checksum::Checksum;
use crate::ext4::format::features::{Compat, Features, Incompat};
use crate::ext4::format::BlockSize;
use crate::tree::{ContentId, Kind, NodeId, Timestamp, Tree};

/// An image, planned. See the module's head.
#[derive(Debug)]
pub struct Plan<'t> {
    tree: &'t Tree,
    block_size: BlockSize,
    geometry: Geometry,
    numbers: Numbers,
    directories: Directories,
    attributes: Attributes,
    layout: Layout,
    groups: Groups,
    journal: u32,
    lost_and_found: bool,
    image_bytes: u64,
    uuid: [u8; 16],
    hash_seed: [u8; 16],
    seed: Checksum,
    label: [u8; 16],
    time: Timestamp,
    /// Times of writing and checking the superblock.
    write_time: u32,
    reserved_blocks: u64,
    features: Features,
    /// What of the image is written, ascending, without the runs.
    own: Vec<Region>,
    warnings: Vec<String>,
}

impl<'t> Plan<'t> {
    /// Plans an image of `tree`.
    pub fn new(tree: &'t Tree, options: &ImageOptions) -> Result<Self> {
        let block_size = validate::block_size(options.block_size)?;
        let label = validate::label(&options.label)?;
        let mut warnings = Vec::new();
        validate::tree(tree, block_size, &mut warnings)?;
        let wished_journal = validate::journal(options, block_size)?;
        validate::reserved(options)?;
        let mut features = match options.profile {
            Profile::Default => Features::modern(),
            Profile::Compat => Features::compat(),
            Profile::Readonly => Features::readonly(),
        };
        // Nothing is ever repaired in place that is never written to.
        let lost_and_found = options.profile != Profile::Readonly
            && tree.lookup(tree.root(), LOST_AND_FOUND_NAME).is_none();
        let digest = tree.metadata_digest();
        let hash_seed = derived_uuid(&digest, 16);
        let directories = Directories::new(tree, lost_and_found, block_size, &hash_seed);
        let mut attributes = Attributes::new(tree, block_size, &mut warnings)?;
        let layouter = Layouter {
            tree,
            directories: &directories,
            lost_and_found,
            resize: features.compat.contains(Compat::RESIZE_INODE),
        };
        let Sized {
            geometry,
            numbers,
            layout,
            journal,
        } = size::solve(
            &layouter,
            block_size,
            options,
            &features,
            wished_journal,
            &mut attributes,
        )?;

        let uuid = options.uuid.unwrap_or_else(|| derived_uuid(&digest, 0));
        features.compat.set(Compat::HAS_JOURNAL, journal > 0);
        let outside = attributes.first_outside();
        let large = directories.first_large();
        features.incompat.set(Incompat::EA_INODE, outside.is_some());
        features.incompat.set(Incompat::LARGE_DIR, large.is_some());
        if options.profile == Profile::Compat {
            validate::newer_features(tree, block_size, outside, large, &mut warnings);
        }
        let newest = tree.newest_mtime();
        let time = Timestamp {
            seconds: options.timestamp.unwrap_or(newest.seconds),
            nanoseconds: if options.timestamp.is_some() {
                0
            } else {
                newest.nanoseconds
            },
        };
        let image_bytes = match options.size {
            Size::Bytes(bytes) => bytes - bytes % u64::from(block_size.bytes()),
            Size::Auto | Size::Min => block_size.bytes_of(geometry.blocks),
        };
        let mut plan = Self {
            groups: Groups::default(),
            own: Vec::new(),
            seed: if features.has_checksums() {
                Checksum::seed(&uuid)
            } else {
                Checksum::off()
            },
            hash_seed,
            // e2fsck holds a last write in the future for a broken clock, and
            // a layer's newest file may well be from there: only a time that
            // the user vouches for is told.
            reserved_blocks: size::reserved_blocks(options, block_size),
            write_time: options.timestamp.map_or(0, superblock_time),
            tree,
            block_size,
            geometry,
            numbers,
            directories,
            attributes,
            layout,
            journal,
            lost_and_found,
            image_bytes,
            uuid,
            label,
            time,
            features,
            warnings,
        };
        plan.groups = Groups::new(&plan);
        plan.own = plan.own_regions();
        Ok(plan)
    }

    /// Size of the image file in bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Block size in bytes.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size.bytes()
    }

    /// Blocks of the file system.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.geometry.blocks
    }

    /// Free blocks.
    #[must_use]
    pub fn free_blocks(&self) -> u64 {
        self.groups.free_blocks()
    }

    /// Inodes of the file system.
    #[must_use]
    pub fn inode_count(&self) -> u32 {
        self.geometry.inodes()
    }

    /// Free inodes.
    #[must_use]
    pub fn free_inodes(&self) -> u32 {
        self.groups.free_inodes()
    }

    /// The file system's UUID.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// What the user should know, as sentences.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Bytes that are written; the rest of the image are holes.
    #[must_use]
    pub fn bytes_to_write(&self) -> u64 {
        self.regions().map(|region| region.bytes()).sum()
    }

    /// The file that a region of data belongs to: where its bytes are, its
    /// size, and the byte of it where the region begins.
    #[must_use]
    pub fn data(&self, region: &Region) -> Option<(ContentId, u64, u64)> {
        let RegionKind::Run { index, skip } = region.kind else {
            return None;
        };
        let run = &self.layout.runs[index as usize];
        if run.what != What::Data {
            return None;
        }
        match self.tree.node(NodeId::new(run.owner)).kind {
            Kind::File { size, content } => {
                let first = u64::from(run.logical) + u64::from(skip);
                Some((content, size, self.block_size.bytes_of(first)))
            }
            _ => None,
        }
    }

    /// The tree that was planned.
    #[must_use]
    pub fn tree(&self) -> &'t Tree {
        self.tree
    }

    /// The runs of a node, from its first on.
    fn runs_of(&self, node: NodeId) -> &[Run] {
        let first = self.layout.first_run[node.index()];
        if first == u32::MAX {
            return &[];
        }
        let runs = &self.layout.runs[first as usize..];
        let mine = |run: &&Run| {
            run.owner as usize == node.index()
                && matches!(
                    run.what,
                    What::Data | What::Directory | What::Symlink | What::ExtentTree
                )
        };
        let count = runs.iter().take_while(mine).count();
        &runs[..count]
    }
}

/// 16 bytes of a digest as a UUID of version 8 ("custom", RFC 9562).
fn derived_uuid(digest: &[u8; 32], at: usize) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[at..at + 16]);
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

/// The superblock's own times have no sign.
fn superblock_time(seconds: i64) -> u32 {
    seconds.clamp(0, i64::from(u32::MAX)) as u32
}
