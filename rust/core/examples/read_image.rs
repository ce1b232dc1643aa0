//! Tells what two independent readers of ext4 find in an image: every entry, every byte.
//!
//!     cargo run --example read_image -- ext4-view|mkext4|verify IMAGE
//!
//! A writer that is judged by its own reader proves nothing. These two were
//! written by others, each from the format's description, and share no code.
//! `verify` is mkext4's: it computes every checksum of the image anew.
#![allow(missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

/// What both readers can tell of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// SHA-256 of a file, target of a symlink.
    pub content: Vec<u8>,
}

/// All entries of an image by their path; the root's is empty.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

type Failure = Box<dyn std::error::Error>;

const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;

/// The tree as the crate `ext4-view` reads it.
///
/// # Errors
///
/// What the crate has against the image.
pub fn read_with_ext4_view(image: &Path) -> Result<Tree, Failure> {
    let ext4 = ext4_view::Ext4::load_from_path(image)?;
    let mut tree = Tree::new();
    let root = ext4_view::PathBuf::new("/");
    let metadata = ext4.symlink_metadata(&root)?;
    tree.insert(Vec::new(), view_entry(&ext4, &root, &metadata)?);
    let mut open = vec![root];
    while let Some(directory) = open.pop() {
        for found in ext4.read_dir(&directory)? {
            let found = found?;
            let name = found.file_name();
            if name == b"." || name == b".." {
                continue;
            }
            let path = found.path();
            let metadata = found.metadata()?;
            let entry = view_entry(&ext4, &path, &metadata)?;
            // The type is told twice: beside the name and in the inode.
            if found.file_type()? != metadata.file_type() {
                return Err(format!("{}: two types", path.display()).into());
            }
            if metadata.is_dir() {
                open.push(path.clone());
            }
            let bytes: &[u8] = path.as_ref();
            tree.insert(bytes[1..].to_vec(), entry);
        }
    }
    Ok(tree)
}

fn view_entry(
    ext4: &ext4_view::Ext4,
    path: &ext4_view::PathBuf,
    metadata: &ext4_view::Metadata,
) -> Result<Entry, Failure> {
    let kind = match metadata.file_type() {
        ext4_view::FileType::BlockDevice => 0o060_000,
        ext4_view::FileType::CharacterDevice => 0o020_000,
        ext4_view::FileType::Directory => S_IFDIR,
        ext4_view::FileType::Fifo => 0o010_000,
        ext4_view::FileType::Regular => S_IFREG,
        ext4_view::FileType::Socket => 0o140_000,
        ext4_view::FileType::Symlink => S_IFLNK,
    };
    let content = match kind {
        S_IFREG => {
            let data = ext4.read(path)?;
            if u64::try_from(data.len())? != metadata.len() {
                return Err(format!("{}: {} bytes read", path.display(), data.len()).into());
            }
            Sha256::digest(data).to_vec()
        }
        S_IFLNK => {
            let target = ext4.read_link(path)?;
            let bytes: &[u8] = target.as_ref();
            bytes.to_vec()
        }
        _ => Vec::new(),
    };
    let mtime = metadata.modified();
    Ok(Entry {
        mode: kind | metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (mtime.seconds(), mtime.nanoseconds()),
        content,
    })
}

/// The tree as the reader of the crate `mkext4` reads it, checksums verified.
///
/// # Errors
///
/// What the crate has against the image.
pub fn read_with_mkext4(image: &Path) -> Result<Tree, Failure> {
    const ROOT_INODE: u32 = 2;
    let ext4 = mkext4::reader::Fs::open(std::fs::File::open(image)?)?;
    let mut tree = Tree::new();
    tree.insert(Vec::new(), mkext4_entry(&ext4, ROOT_INODE)?);
    let mut open = vec![(Vec::new(), ROOT_INODE)];
    while let Some((path, directory)) = open.pop() {
        for found in ext4.read_dir(directory)? {
            if found.name == b"." || found.name == b".." {
                continue;
            }
            let mut child = path.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&found.name);
            let entry = mkext4_entry(&ext4, found.inode)?;
            if entry.mode & S_IFMT == S_IFDIR {
                open.push((child.clone(), found.inode));
            }
            tree.insert(child, entry);
        }
    }
    Ok(tree)
}

fn mkext4_entry(ext4: &mkext4::reader::Fs<std::fs::File>, number: u32) -> Result<Entry, Failure> {
    let inode = ext4.inode(number)?;
    let content = match inode.mode & S_IFMT {
        S_IFREG => Sha256::digest(ext4.read_file(number)?).to_vec(),
        S_IFLNK => ext4.symlink_target(number)?,
        _ => Vec::new(),
    };
    // Two bits extend the seconds, which count from 1901 to 2446; thirty are
    // nanoseconds (the kernel's ext4_decode_extra_time).
    let epoch = i64::from(inode.mtime_extra & 3) << 32;
    let seconds = i64::from(inode.mtime.cast_signed()) + epoch;
    Ok(Entry {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        mtime: (seconds, inode.mtime_extra >> 2),
        content,
    })
}

/// What mkext4's verification finds: every checksum and structure it knows.
///
/// Two of its findings are its own, and are left out:
/// - it computes the checksum of a group descriptor over 32 bytes only, while
///   with `64bit` the kernel takes all 64 (`ext4_group_desc_csum`); it says the
///   same of an image that `mke2fs -O 64bit` made;
/// - it wants a checksum in a reserved inode that is all zero (the journal's in an
///   image without one is such), which e2fsck takes for a valid one (`ext2fs_inode_csum_verify`, "zeroed-out inodes").
///
/// # Errors
///
/// The image cannot be read at all.
pub fn verify(image: &Path) -> Result<Vec<String>, Failure> {
    let ext4 = mkext4::reader::Fs::open(std::fs::File::open(image)?)?;
    let issues = ext4.verify()?.into_iter().map(|issue| issue.what);
    Ok(issues.filter(|issue| !is_its_own(&ext4, issue)).collect())
}

fn is_its_own(ext4: &mkext4::reader::Fs<std::fs::File>, issue: &str) -> bool {
    if issue.starts_with("group ") && issue.contains(": desc checksum ") {
        return ext4.superblock().desc_size() == 64;
    }
    [1, 3, 4, 5, 6, 8, 9, 10].into_iter().any(|number| {
        issue.starts_with(&format!("inode {number}: "))
            && issue.ends_with("stored 0x0")
            && ext4
                .inode_raw(number)
                .is_ok_and(|raw| raw.iter().all(|&byte| byte == 0))
    })
}

/// One line for an entry: path and content escaped, the rest in numbers.
#[must_use]
pub fn line(path: &[u8], entry: &Entry) -> String {
    let content = if entry.mode & S_IFMT == S_IFREG {
        entry.content.iter().fold(String::new(), |mut text, byte| {
            // OK to ignore: writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    } else {
        entry.content.escape_ascii().to_string()
    };
    format!(
        "{}\t{:o}\t{}\t{}\t{}.{:09}\t{content}",
        path.escape_ascii(),
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime.0,
        entry.mtime.1,
    )
}

#[allow(dead_code, reason = "tests/readers.rs uses this file as a module")]
fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [reader, image] = arguments.as_slice() else {
        return Err("usage: read_image ext4-view|mkext4|verify IMAGE".into());
    };
    let image = Path::new(image);
    let tree = match reader.to_str() {
        Some("ext4-view") => read_with_ext4_view(image)?,
        Some("mkext4") => read_with_mkext4(image)?,
        Some("verify") => {
            let issues = verify(image)?;
            for issue in &issues {
                println!("{issue}");
            }
            std::process::exit(i32::from(!issues.is_empty()));
        }
        _ => return Err(format!("no reader {}", reader.display()).into()),
    };
    for (path, entry) in &tree {
        println!("{}", line(path, entry));
    }
    Ok(())
}
