//! The way from the root to every directory (`e2fsck_pass3`), and how many names
//! every inode has (`e2fsck_pass4`).

use super::table::{Entry, Table};
use super::Deep;
use crate::error::Result;
use crate::ext4::read::features::ro_compat;
use crate::ext4::read::inode::{Kind, ROOT_INODE};
use crate::ext4::read::Fault;

/// `EXT2_LINK_MAX`: a directory with more names is told to have one.
const LINK_MAX: u32 = 65_000;

impl Deep<'_> {
    pub(super) fn connectivity(&mut self) -> Result<()> {
        let places = self.directories.len();
        if !self
            .directories
            .iter()
            .any(|directory| directory.number == ROOT_INODE)
        {
            self.problem("root-inode", "there is no root directory".into());
        }
        // The round in which a directory was met first.
        let mut met = vec![0u32; places];
        let mut round = 0;
        for start in 0..places {
            if start % 1024 == 0 {
                self.control.check()?;
            }
            round += 1;
            let mut place = start;
            while met[place] == 0 {
                met[place] = round;
                let (number, parent) = {
                    let directory = &self.directories[place];
                    (directory.number, directory.parent)
                };
                if number == ROOT_INODE {
                    break;
                }
                if parent == 0 {
                    self.problem(
                        "unattached",
                        format!(
                            "inode {number}: it is a directory, but no directory has a name for it"
                        ),
                    );
                    break;
                }
                let above = self
                    .directories
                    .binary_search_by_key(&parent, |directory| directory.number);
                let Ok(above) = above else { break };
                if met[above] == round {
                    self.problem(
                        "directory-loop",
                        format!(
                            "inode {number}: it is a directory that lies in itself, by {parent}"
                        ),
                    );
                    break;
                }
                place = above;
            }
            self.dotdot(start);
        }
        Ok(())
    }

    fn dotdot(&mut self, place: usize) {
        let directory = &self.directories[place];
        let (number, dotdot) = (directory.number, directory.dotdot);
        let parent = if number == ROOT_INODE {
            ROOT_INODE
        } else {
            directory.parent
        };
        if parent != 0 && dotdot != parent {
            self.problem(
                "directory-dotdot",
                format!("inode {number}: its \"..\" is inode {dotdot}, but it is in {parent}"),
            );
        }
    }

    pub(super) fn link_counts(&mut self) -> Result<()> {
        for chunk in self.inodes.chunks() {
            self.control.check()?;
            for number in Table::numbers(chunk) {
                let entry = self.inodes.get(number);
                let own = number == 0
                    || self.is_reserved(number)
                    || self.is_special(number)
                    || (entry.links == 0 && self.orphans.contains(&number));
                if entry.used && !own {
                    self.links_of(number, entry)?;
                }
            }
        }
        Ok(())
    }

    fn links_of(&mut self, number: u32, entry: Entry) -> Result<()> {
        let mut names = entry.names;
        let values = self.attributes.values.get(&number).copied();
        if let Some(named) = values {
            names = 1;
            self.value_references(number, named)?;
        }
        let directory = entry.kind == Some(Kind::Directory);
        if names == 0 {
            if !directory {
                self.problem(
                    "unattached",
                    format!("inode {number}: it is in use, but no directory has a name for it"),
                );
            }
            return Ok(());
        }
        let links = u32::from(entry.links);
        if directory && names > LINK_MAX {
            if !self.sb.has_ro_compat(ro_compat::DIR_NLINK) {
                self.problem(
                    "link-count",
                    format!(
                        "inode {number}: it has {names} links, which needs the feature dir_nlink"
                    ),
                );
            }
            names = 1;
        }
        // A directory that once had too many keeps 1.
        let overflowed = directory && entry.indexed && links == 1;
        if links != names && !overflowed {
            self.problem(
                "link-count",
                format!("inode {number}: i_links_count is {links}, but it has {names} names"),
            );
        }
        Ok(())
    }

    /// How often a value is named, against what its inode says. Those of Lustre
    /// do not count, and have the same ctime and atime.
    fn value_references(&mut self, number: u32, named: u64) -> Result<()> {
        let inode = match self.fs.inode(number) {
            Ok(inode) => inode,
            Err(Fault::Host(error)) => return Err(error),
            Err(Fault::Nonsense(_)) => return Ok(()),
        };
        let (ctime, atime) = (inode.ctime.seconds as u32, inode.atime.seconds as u32);
        let told = u64::from(ctime) << 32 | u64::from(inode.i_version);
        if told != named && ctime != atime {
            self.problem(
                "xattr-refcount",
                format!("inode {number}: it holds a value and tells {told} references; {named} attributes name it"),
            );
        }
        Ok(())
    }
}
