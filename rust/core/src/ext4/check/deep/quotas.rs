//! What quota files tell, against what is in use (`quota_compare_and_update`).

use std::collections::HashMap;

use super::attributes::Charge;
use super::bits::Bits;
use super::Deep;
use crate::error::Result;
use crate::ext4::read::features::ro_compat;
use crate::ext4::read::inode::{flags, Inode, OLD_SIZE, ROOT_INODE};
use crate::ext4::read::quota::{self, Entry, Header, Kind, BLOCK_SIZE, DEPTH, ROOT};
use crate::ext4::read::runs::{self, Run};
use crate::ext4::read::superblock::Superblock;
use crate::ext4::read::Fault;

/// A quota file may be no longer (`v2_init_io`).
const LONGEST: u64 = 1 << 31;

/// Usage of every kind that the file system has a quota file for.
#[derive(Default)]
pub(super) struct Quotas(Vec<Quota>);

struct Quota {
    kind: Kind,
    /// The file's inode.
    number: u32,
    used: HashMap<u32, Usage>,
}

/// What inodes use that belong to a user, group or project.
#[derive(Default)]
struct Usage {
    space: u64,
    inodes: u64,
    /// There is an entry for it.
    told: bool,
}

impl Quotas {
    /// `quota_init_context`
    pub(super) fn of(sb: &Superblock) -> Self {
        if !sb.has_ro_compat(ro_compat::QUOTA) {
            return Self::default();
        }
        let numbers = [
            sb.s_usr_quota_inum,
            sb.s_grp_quota_inum,
            sb.s_prj_quota_inum,
        ];
        let files = Kind::ALL.into_iter().zip(numbers);
        Self(
            files
                .filter(|(_, number)| *number != 0)
                .map(|(kind, number)| Quota {
                    kind,
                    number,
                    used: HashMap::new(),
                })
                .collect(),
        )
    }
}

/// The bytes of a quota file, by blocks of the tree.
struct File {
    runs: Vec<Run>,
    size: u64,
}

impl Deep<'_> {
    /// Counts an inode with so many clusters to its owners (`check_blocks`):
    /// values in inodes count for those that name them.
    pub(super) fn charge(&mut self, number: u32, inode: &Inode, clusters: u64, values: Charge) {
        let sb = self.sb;
        let is_file = number == ROOT_INODE || number >= sb.s_first_ino;
        let own = [sb.s_prj_quota_inum, sb.s_orphan_file_inum].contains(&number);
        if self.quotas.0.is_empty() || !is_file || own || inode.has(flags::EA_INODE) {
            return;
        }
        let unit = u64::from(self.geometry.cluster_ratio) * u64::from(self.geometry.block_size);
        for quota in &mut self.quotas.0 {
            let id = match quota.kind {
                Kind::User => inode.uid,
                Kind::Group => inode.gid,
                // There is no room for it.
                Kind::Project if usize::from(self.geometry.inode_size) <= OLD_SIZE => continue,
                Kind::Project => inode.i_projid,
            };
            let usage = quota.used.entry(id).or_default();
            usage.space = usage.space.saturating_add(clusters.saturating_mul(unit));
            usage.inodes = usage.inodes.saturating_add(values.inodes + 1);
        }
    }

    pub(super) fn compare_quotas(&mut self) -> Result<()> {
        let mut quotas = std::mem::take(&mut self.quotas);
        for quota in &mut quotas.0 {
            self.control.check()?;
            if let Some(text) = self.quota(quota)? {
                let kind = quota.kind.name();
                self.problem(
                    "quota-file",
                    format!(
                        "inode {}: it is the {kind}s' quota, but {text}",
                        quota.number
                    ),
                );
            }
        }
        Ok(())
    }

    /// Compares a quota file with what is in use; returns what is wrong with the
    /// file itself, which ends the comparison.
    fn quota(&mut self, quota: &mut Quota) -> Result<Option<String>> {
        let file = match self.open_quota(quota.number)? {
            Ok(file) => file,
            Err(text) => return Ok(Some(text)),
        };
        let header = Header::decode(&self.quota_block(&file, 0)?);
        if let Some(text) = header_fault(header, quota.kind, file.size) {
            return Ok(Some(text));
        }
        let mut seen = Bits::default();
        let found = self.quota_tree(quota, &file, header, &mut seen, (ROOT, 0))?;
        if found.is_some() {
            return Ok(found);
        }
        let mut untold: Vec<u32> = quota
            .used
            .iter()
            .filter(|(_, usage)| !usage.told)
            .map(|(id, _)| *id)
            .collect();
        untold.sort_unstable();
        for id in untold {
            let kind = quota.kind.name();
            self.problem(
                "quota-missing",
                format!("{kind} {id} has inodes, but no entry in the {kind}s' quota"),
            );
        }
        Ok(None)
    }

    fn open_quota(&mut self, number: u32) -> Result<std::result::Result<File, String>> {
        let inode = match self.fs.inode(number) {
            Ok(inode) => inode,
            Err(Fault::Host(error)) => return Err(error),
            Err(Fault::Nonsense(text)) => return Ok(Err(text)),
        };
        if inode.size > LONGEST {
            return Ok(Err(format!("has {} bytes", inode.size)));
        }
        let mut file = File {
            runs: Vec::new(),
            size: inode.size,
        };
        let end = inode.size.div_ceil(self.geometry.block_size.into());
        let walked = runs::visit(self.fs, number, &inode, &mut |run| {
            self.control.check()?;
            if run.logical < end && !run.unwritten {
                file.runs.push(run);
            }
            Ok(())
        });
        match walked {
            Err(Fault::Host(error)) => Err(error),
            // A map that makes no sense was told; what comes before can be read.
            Ok(()) | Err(Fault::Nonsense(_)) => Ok(Ok(file)),
        }
    }

    /// A block of the tree; what is a hole or behind the end reads as zeros.
    fn quota_block(&mut self, file: &File, block: u32) -> Result<[u8; BLOCK_SIZE]> {
        let mut raw = [0; BLOCK_SIZE];
        let begin = u64::from(block) * BLOCK_SIZE as u64;
        let block_size = u64::from(self.geometry.block_size);
        let logical = begin / block_size;
        let behind = file.runs.partition_point(|run| run.logical <= logical);
        let run = file.runs[..behind]
            .last()
            .filter(|run| logical < run.logical + run.len);
        let (Some(run), Some(room)) = (run, file.size.checked_sub(begin)) else {
            return Ok(raw);
        };
        let at = self
            .geometry
            .byte(run.physical + (logical - run.logical))
            .saturating_add(begin % block_size);
        // OK to cut: at most BLOCK_SIZE.
        let len = room.min(BLOCK_SIZE as u64) as usize;
        if !self.fs.image.read(at, &mut raw[..len])? {
            self.problem(
                "truncated",
                format!("block {} is behind the end", at / block_size),
            );
        }
        Ok(raw)
    }

    /// Goes through all entries (`report_tree`), reading every block once for a
    /// level.
    fn quota_tree(
        &mut self,
        quota: &mut Quota,
        file: &File,
        header: Header,
        seen: &mut Bits,
        (block, level): (u32, usize),
    ) -> Result<Option<String>> {
        self.control.check()?;
        if !seen.insert((level as u64) << 32 | u64::from(block)) {
            return Ok(None);
        }
        let raw = self.quota_block(file, block)?;
        if level == DEPTH {
            for entry in quota::entries(&raw, header.dqh_version) {
                self.quota_entry(quota, entry);
            }
            return Ok(None);
        }
        for below in quota::references(&raw).filter(|below| *below != 0) {
            if below >= header.dqi_blocks {
                return Ok(Some(format!(
                    "its tree names block {below} of {}",
                    header.dqi_blocks
                )));
            }
            let fault = self.quota_tree(quota, file, header, seen, (below, level + 1))?;
            if fault.is_some() {
                return Ok(fault);
            }
        }
        Ok(None)
    }

    fn quota_entry(&mut self, quota: &mut Quota, entry: Entry) {
        let Entry { id, space, inodes } = entry;
        let (used_space, used_inodes) = match quota.used.get_mut(&id) {
            Some(usage) => {
                usage.told = true;
                (usage.space, usage.inodes)
            }
            None => (0, 0),
        };
        if (space, inodes) != (used_space, used_inodes) {
            let kind = quota.kind.name();
            self.problem(
                "quota-usage",
                format!(
                    "{kind} {id} has {used_inodes} inodes with {used_space} bytes; the {kind}s' quota tells {inodes} with {space}"
                ),
            );
        }
    }
}

/// `v2_check_file` and `v2_init_io`; the magic number, and that no list begins
/// at the root, are demanded by the kernel alone (`v2_check_quota_file`).
fn header_fault(header: Header, kind: Kind, size: u64) -> Option<String> {
    let Header {
        dqh_magic,
        dqh_version,
        dqi_blocks,
        ..
    } = header;
    if dqh_magic != kind.magic() {
        return Some(format!(
            "its magic number is 0x{dqh_magic:08x}, not 0x{:08x}",
            kind.magic()
        ));
    }
    if dqh_version > 1 {
        return Some(format!("its version is {dqh_version}"));
    }
    if u64::from(dqi_blocks) > size.div_ceil(BLOCK_SIZE as u64) {
        return Some(format!("has {size} bytes and tells {dqi_blocks} blocks"));
    }
    for (what, first) in [
        ("free blocks", header.dqi_free_blk),
        ("blocks with room", header.dqi_free_entry),
    ] {
        if first >= dqi_blocks || first == ROOT {
            return Some(format!(
                "its list of {what} begins at block {first} of {dqi_blocks}"
            ));
        }
    }
    None
}
