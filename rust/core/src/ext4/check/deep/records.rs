//! The records of a directory's block (`check_dir_block`).

use super::directories::Reading;
use super::htree::Hashes;
use super::Deep;
use crate::ext4::read::dirent::{self, needed, Dirent, HEADER_SIZE};
use crate::ext4::read::features::incompat;
use crate::ext4::read::hash;
use crate::ext4::read::inode::{flags, Kind, ROOT_INODE};

/// Bytes that are records, of a block.
pub(super) struct Block<'a> {
    pub(super) raw: &'a [u8],
    /// Which block of the directory it is.
    pub(super) logical: u64,
    /// Bytes of the whole block, which decide how lengths are told.
    pub(super) of: usize,
}

/// Encrypted names are of that many bytes at least (`EXT4_CRYPTO_BLOCK_SIZE`).
const LEAST_ENCRYPTED: u8 = 16;

/// What is told of names whose place in an index hangs on Unicode's tables.
const NOT_FOLDED: &str = "hashes of names that are not ASCII, in directories that fold cases";

impl Deep<'_> {
    /// Looks at all records; returns the least and the largest hash of a name.
    pub(super) fn records(&mut self, reading: &mut Reading, block: &Block<'_>) -> Hashes {
        let mut hashes = Hashes::default();
        let mut names: Vec<&[u8]> = Vec::new();
        let (mut at, mut count) = (0, 0);
        while at < block.raw.len() {
            let record = dirent::decode(block.raw, at, block.of)
                .filter(|record| dirent::is_possible(record, at, block.raw.len()));
            let Some(record) = record else {
                reading.bad += 1;
                self.problem(
                    "directory-record",
                    format!(
                        "inode {}: the record at byte {at} of its block {} is none",
                        reading.number, block.logical
                    ),
                );
                break;
            };
            let dot = (block.logical == 0 && count < 2).then_some(count);
            if let Some(dot) = dot {
                self.dot(reading, &record, dot);
                let behind = block.raw.get(at + HEADER_SIZE + record.name.len());
                if behind.is_some_and(|byte| *byte != 0) {
                    self.problem(
                        "directory-dot",
                        format!(
                            "inode {}: record {dot} has no zero behind its name",
                            reading.number
                        ),
                    );
                }
            }
            if record.inode != 0 {
                if dot.is_none() {
                    self.record(reading, &record);
                }
                if self.target(reading, &record, dot.is_some()) {
                    names.push(record.name);
                }
                if let Some(index) = &reading.index {
                    match index.hash(self.sb, &reading.inode, record.name) {
                        Some(hash) => hashes.note(hash),
                        None => self.note(NOT_FOLDED),
                    }
                }
            }
            at += record.rec_len;
            count += 1;
        }
        if block.logical == 0 && count < 2 {
            self.problem(
                "directory-dot",
                format!(
                    "inode {}: its first block does not begin with \".\" and \"..\"",
                    reading.number
                ),
            );
        }
        let folded: Vec<Vec<u8>>;
        if self.folds_strictly(reading) {
            // As far as it is ASCII.
            folded = names.iter().map(|name| name.to_ascii_lowercase()).collect();
            names = folded.iter().map(Vec::as_slice).collect();
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = pair[0].escape_ascii();
            self.problem(
                "directory-duplicate",
                format!(
                    "inode {}: the name \"{name}\" is in it twice",
                    reading.number
                ),
            );
        }
        hashes
    }

    /// Names that are equal but for case, or are no UTF-8, cannot be in it
    /// (`EXT4_ENC_STRICT_MODE_FL`).
    fn folds_strictly(&self, reading: &Reading) -> bool {
        reading.inode.has(flags::CASEFOLD)
            && self.sb.has_incompat(incompat::CASEFOLD)
            && self.sb.s_encoding_flags & 1 != 0
    }

    /// The first record has to be ".", the second "..".
    fn dot(&mut self, reading: &mut Reading, record: &Dirent<'_>, which: usize) {
        let number = reading.number;
        let expected: &[u8] = if which == 0 { b"." } else { b".." };
        let mut bad = |text: String| {
            self.report
                .problem("directory-dot", format!("inode {number}: {text}"));
        };
        if record.name != expected || record.inode == 0 {
            bad(format!(
                "record {which} is not \"{}\", but \"{}\"",
                expected.escape_ascii(),
                record.name.escape_ascii()
            ));
        } else if which == 0 && record.inode != number {
            bad(format!("its \".\" is inode {}", record.inode));
        } else if which == 0 && record.rec_len > 2 * needed(1) {
            bad(format!("its \".\" takes {} bytes", record.rec_len));
        }
        if which == 1 {
            self.directories[reading.place].dotdot = record.inode;
        }
    }

    /// The two names that an inline directory does not write.
    pub(super) fn inline_dots(&mut self, reading: &mut Reading, parent: u32) {
        self.directories[reading.place].dotdot = parent;
        let directory = Kind::Directory.file_type();
        for (inode, name) in [(reading.number, &b"."[..]), (parent, b"..")] {
            let record = Dirent {
                inode,
                rec_len: needed(name.len()),
                name_len: name.len() as u8,
                file_type: directory,
                name,
            };
            self.target(reading, &record, true);
        }
    }

    /// A record's name.
    fn record(&mut self, reading: &Reading, record: &Dirent<'_>) {
        let shown = record.name.escape_ascii();
        let fault = if record.name.is_empty() {
            Some("it has a name of no bytes".to_owned())
        } else if record.name == b"." || record.name == b".." {
            Some(format!("it has a further \"{shown}\""))
        } else if self.policy_of(reading.number).is_some() {
            (record.name_len < LEAST_ENCRYPTED)
                .then(|| format!("the encrypted name \"{shown}\" is too short"))
        } else if self.folds_strictly(reading) && std::str::from_utf8(record.name).is_err() {
            Some(format!("the name \"{shown}\" is not of UTF-8"))
        } else if record.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            Some(format!(
                "the name \"{shown}\" has a byte that names cannot have"
            ))
        } else {
            None
        };
        if let Some(text) = fault {
            self.problem(
                "directory-name",
                format!("inode {}: {text}", reading.number),
            );
        }
    }

    /// The inode that a record names; whether it counts as a name of it.
    fn target(&mut self, reading: &Reading, record: &Dirent<'_>, is_dot: bool) -> bool {
        let (sb, number, target) = (self.sb, reading.number, record.inode);
        let shown = || record.name.escape_ascii().to_string();
        let own = [
            sb.s_usr_quota_inum,
            sb.s_grp_quota_inum,
            sb.s_prj_quota_inum,
            sb.s_orphan_file_inum,
        ];
        if target > sb.s_inodes_count || self.is_reserved(target) || own.contains(&target) {
            self.problem(
                "directory-inode",
                format!(
                    "inode {number}: \"{}\" is inode {target}, which no name has",
                    shown()
                ),
            );
            return false;
        }
        if !is_dot && target == ROOT_INODE {
            self.problem(
                "directory-inode",
                format!("inode {number}: \"{}\" is the root directory", shown()),
            );
        }
        if !is_dot && target == number {
            self.problem(
                "directory-inode",
                format!("inode {number}: \"{}\" is the directory itself", shown()),
            );
        }
        let index = target - 1;
        let group = &self.groups[(index / self.geometry.inodes_per_group) as usize];
        let entry = self.inodes.get(target);
        if index % self.geometry.inodes_per_group >= group.inodes || !entry.used {
            self.problem(
                "directory-inode",
                format!(
                    "inode {number}: \"{}\" is inode {target}, which is not in use",
                    shown()
                ),
            );
            return false;
        }
        if entry.holds_value && self.attributes.values.contains_key(&target) {
            self.problem(
                "directory-inode",
                format!(
                    "inode {number}: \"{}\" is inode {target}, which holds a value of an attribute",
                    shown()
                ),
            );
        }
        self.file_type(number, record, entry.kind);
        if !is_dot {
            self.same_policy(number, target, record.file_type, entry.kind);
        }
        if !is_dot && entry.kind == Some(Kind::Directory) {
            self.name_of_directory(number, record);
        }
        let names = &mut self.inodes.entry(target).names;
        *names = names.saturating_add(1);
        true
    }

    fn file_type(&mut self, number: u32, record: &Dirent<'_>, kind: Option<Kind>) {
        let expected = if self.sb.has_incompat(incompat::FILETYPE) {
            kind.map_or(0, Kind::file_type)
        } else {
            0
        };
        // 0 with the feature: not told, which old systems did.
        if record.file_type != expected && record.file_type != 0 {
            self.problem(
                "directory-type",
                format!(
                    "inode {number}: \"{}\" says to be of type {}, but is of type {expected}",
                    record.name.escape_ascii(),
                    record.file_type
                ),
            );
        }
    }

    fn name_of_directory(&mut self, number: u32, record: &Dirent<'_>) {
        let found = self
            .directories
            .binary_search_by_key(&record.inode, |directory| directory.number);
        let Ok(place) = found else {
            return;
        };
        let parent = self.directories[place].parent;
        if record.inode == ROOT_INODE {
            return;
        }
        if parent == 0 {
            self.directories[place].parent = number;
            return;
        }
        self.problem(
            "directory-links",
            format!(
                "inode {number}: \"{}\" is the directory {}, which has a name in {parent} already",
                record.name.escape_ascii(),
                record.inode
            ),
        );
    }
}

impl super::htree::Index {
    /// The hash of a name in this directory; `None` for one that cannot be
    /// computed from the bytes alone.
    fn hash(
        &self,
        sb: &crate::ext4::read::superblock::Superblock,
        inode: &crate::ext4::read::inode::Inode,
        name: &[u8],
    ) -> Option<u32> {
        if !inode.has(flags::CASEFOLD) {
            return Some(hash::hash(name, self.version, &sb.s_hash_seed).0);
        }
        // Unicode's folding of ASCII is lower case.
        let folded = name.to_ascii_lowercase();
        name.is_ascii()
            .then(|| hash::hash(&folded, self.version, &sb.s_hash_seed).0)
    }
}
