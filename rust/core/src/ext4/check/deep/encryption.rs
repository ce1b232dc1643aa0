//! Encryption: whether what is encrypted has a policy, and what is in an
//! encrypted directory the same as it (`encrypted_files.c`,
//! `check_encryption_policy`). What is encrypted stays unread.

use std::collections::HashMap;

use super::attributes::in_inode;
use super::Deep;
use crate::error::Result;
use crate::ext4::read::inode::{flags, Inode, Kind};
use crate::ext4::read::xattr::{self, Header, BLOCK_HEADER_SIZE, INODE_HEADER_SIZE, MAGIC};

/// `EXT4_XATTR_INDEX_ENCRYPTION`, `EXT4_XATTR_NAME_ENCRYPTION_CONTEXT`
const NAME: (u8, &[u8]) = (9, b"c");
/// Bytes of a context by its version (`struct fscrypt_context_v1`, `_v2`), and
/// how many of them are the policy; a nonce is behind.
const VERSIONS: [(u8, usize, usize); 2] = [(1, 28, 12), (2, 40, 24)];

/// The policies of encrypted inodes.
#[derive(Default)]
pub(super) struct Encryption {
    /// The numbers of those policies that were met; 0 is any of a version that
    /// is not known.
    policies: HashMap<Vec<u8>, u32>,
    inodes: HashMap<u32, u32>,
}

impl Deep<'_> {
    /// Takes the policy of an inode that says to be encrypted.
    pub(super) fn encrypted(&mut self, number: u32, inode: &Inode, raw: &[u8]) -> Result<()> {
        if !inode.has(flags::ENCRYPT) {
            return Ok(());
        }
        let Some(context) = self.encryption_context(inode, raw)? else {
            self.problem(
                "encryption",
                format!("inode {number}: it is encrypted, but has no policy"),
            );
            return Ok(());
        };
        let version = context.first().copied().unwrap_or(0);
        let known = VERSIONS.iter().find(|(known, ..)| *known == version);
        let policy = match known {
            None if version != 0 => 0,
            Some((_, size, policy)) if *size == context.len() => {
                let next = self.encryption.policies.len() as u32 + 1;
                let named = self.encryption.policies.entry(context[..*policy].to_vec());
                *named.or_insert(next)
            }
            _ => {
                self.problem(
                    "encryption",
                    format!(
                        "inode {number}: its policy of encryption, of {} bytes and version {version}, is none",
                        context.len()
                    ),
                );
                return Ok(());
            }
        };
        self.encryption.inodes.insert(number, policy);
        Ok(())
    }

    /// By the kernel's name of it, and only where libext2fs reads all of the
    /// lists (`ext2fs_xattrs_read`).
    fn encryption_context(&self, inode: &Inode, raw: &[u8]) -> Result<Option<Vec<u8>>> {
        let inside = in_inode(raw, inode).map_or(Ok(None), |area| {
            find(area, INODE_HEADER_SIZE, INODE_HEADER_SIZE)
        });
        let Ok(inside) = inside else {
            return Ok(None);
        };
        if inode.file_acl == 0 || !self.is_inside(inode.file_acl) {
            return Ok(inside);
        }
        let mut block = self.block_buffer();
        if !self
            .fs
            .image
            .read(self.geometry.byte(inode.file_acl), &mut block)?
            || Header::decode(&block).is_none_or(|header| header.h_magic != MAGIC)
        {
            return Ok(inside);
        }
        let outside = find(&block, BLOCK_HEADER_SIZE, 0);
        Ok(outside.map_or(None, |outside| inside.or(outside)))
    }

    /// The number of an encrypted inode's policy.
    pub(super) fn policy_of(&self, number: u32) -> Option<u32> {
        self.encryption.inodes.get(&number).copied()
    }

    /// Whether what a record of an encrypted directory names is encrypted alike;
    /// `file_type` is what the record says of it, `kind` what it is.
    pub(super) fn same_policy(
        &mut self,
        directory: u32,
        target: u32,
        file_type: u8,
        kind: Option<Kind>,
    ) {
        let Some(expected) = self.policy_of(directory) else {
            return;
        };
        let found = self.policy_of(target);
        if found == Some(expected) {
            return;
        }
        let told = if file_type == 0 {
            kind.map_or(0, Kind::file_type)
        } else {
            file_type
        };
        // Devices, FIFOs and sockets have nothing to encrypt.
        let needs = [Kind::Regular, Kind::Directory, Kind::Symlink]
            .iter()
            .any(|kind| kind.file_type() == told);
        let text = match found {
            None if needs => "is not encrypted",
            None => return,
            Some(_) => "is encrypted by another policy",
        };
        self.problem(
            "encryption",
            format!(
                "inode {directory}: it is an encrypted directory, but inode {target} in it {text}"
            ),
        );
    }
}

/// A value of a list is not in it.
struct OutOfBounds;

/// The value of the attribute, offsets of values being counted from `base`. Every
/// value has to be in bounds, one of no bytes as well, which nobody else minds
/// (`read_xattrs_from_buffer`).
fn find(
    raw: &[u8],
    first: usize,
    base: usize,
) -> std::result::Result<Option<Vec<u8>>, OutOfBounds> {
    let mut found = None;
    let mut at = first;
    while let Ok(Some(entry)) = xattr::entry(raw, at) {
        at += entry.len();
        if entry.e_value_inum != 0 {
            continue;
        }
        let begin = base + usize::from(entry.e_value_offs);
        let end = begin.saturating_add(entry.e_value_size as usize);
        let value = raw.get(begin..end).ok_or(OutOfBounds)?;
        if found.is_none() && (entry.e_name_index, entry.name) == NAME {
            found = Some(value.to_vec());
        }
    }
    Ok(found)
}
