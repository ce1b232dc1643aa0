//! Extended attributes of a layer's entries: read them, tell overlayfs' own
//! from the others.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::entry::{Flags, Type};
use super::MergeOptions;
use crate::sys::xattrat;
use crate::tree::Xattr;

/// How attributes of a name in a directory are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `listxattrat`: Linux 6.13 and newer.
    At,
    /// `llistxattr` of the name, in a thread whose working directory is the
    /// directory.
    WorkingDirectory,
    /// `llistxattr` of `/proc/self/fd/N/name`.
    Proc,
}

impl Way {
    /// The best way that this kernel (and seccomp filter) allows, tried on an
    /// open directory.
    pub(super) fn probe(directory: BorrowedFd<'_>) -> Self {
        match xattrat::listxattrat(directory, c".", &mut []) {
            Err(Errno::NOSYS | Errno::PERM) => Self::WorkingDirectory,
            _ => Self::At,
        }
    }
}

/// What the attributes of one entry say.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The marks among them.
    pub(super) flags: Flags,
    /// The value of a redirect.
    pub(super) redirect: Option<Box<[u8]>>,
    /// What the merged view shows.
    pub(super) shown: Vec<Xattr>,
}

impl Default for Flags {
    fn default() -> Self {
        Self::empty()
    }
}

/// What an attribute means.
#[derive(Debug, PartialEq, Eq)]
enum Class<'a> {
    /// Bookkeeping that never shows.
    Dropped,
    Opaque,
    Redirect,
    Metacopy,
    Whiteout,
    /// Shown, under the name that the two parts make.
    Shown(&'a [u8], &'a [u8]),
}

/// overlayfs' own attributes are those of one namespace; in it,
/// "overlay.overlay.x" is an escaped "overlay.x" (Linux 6.7 and newer).
fn classify<'a>(name: &'a [u8], options: MergeOptions) -> Class<'a> {
    // XFS lists an ACL a second time in its own raw form.
    if name.starts_with(b"trusted.SGI_ACL_") {
        return Class::Dropped;
    }
    if options.raw {
        return Class::Shown(name, b"");
    }
    if options.fuse_overlayfs {
        for prefix in [
            &b"user.fuseoverlayfs."[..],
            b"user.overlay.",
            b"trusted.overlay.",
        ] {
            match name.strip_prefix(prefix) {
                Some(b"opaque") => return Class::Opaque,
                Some(_) if prefix == b"user.fuseoverlayfs." => return Class::Dropped,
                _ => {}
            }
        }
    }
    let prefix: &[u8] = if options.userxattr {
        b"user.overlay."
    } else {
        b"trusted.overlay."
    };
    let Some(own) = name.strip_prefix(prefix) else {
        // fuse-overlayfs takes both namespaces for its own.
        let foreign = options.fuse_overlayfs
            && (name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay."));
        return if foreign {
            Class::Dropped
        } else {
            Class::Shown(name, b"")
        };
    };
    match own {
        b"opaque" => Class::Opaque,
        b"redirect" => Class::Redirect,
        b"metacopy" => Class::Metacopy,
        b"whiteout" => Class::Whiteout,
        _ => match own.strip_prefix(b"overlay.") {
            Some(rest) => Class::Shown(&name[..prefix.len()], rest),
            None => Class::Dropped,
        },
    }
}

/// `OVL_METACOPY_MIN_SIZE`
const METACOPY_MIN: usize = 4;

/// A metacopy mark is empty, or at least as long as the head of
/// `struct ovl_metacopy`. What is in it the kernel only reads with `verity=on`
/// (`ovl_check_metacopy_xattr`).
fn valid_metacopy(value: &[u8]) -> bool {
    value.is_empty() || value.len() >= METACOPY_MIN
}

/// One thread's reader.
#[derive(Debug)]
pub(super) struct Reader {
    way: Way,
    options: MergeOptions,
    list: Vec<u8>,
    value: Vec<u8>,
    path: Vec<u8>,
    prefix: usize,
}

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of `linux/limits.h`: no list and no
/// value is longer.
const LONGEST: usize = 65_536;

impl Reader {
    /// A reader. With [`Way::WorkingDirectory`] the calling thread gets a
    /// working directory of its own; where that is forbidden `/proc` serves,
    /// and without it nothing does: `ENOSYS`.
    pub(super) fn new(way: Way, options: MergeOptions) -> Result<Self, Errno> {
        let way = match way {
            Way::WorkingDirectory if crate::sys::own_working_directory().is_err() => Way::Proc,
            way => way,
        };
        if way == Way::Proc && rustix::fs::stat("/proc/self/fd").is_err() {
            return Err(Errno::NOSYS);
        }
        Ok(Self {
            way,
            options,
            list: vec![0; LONGEST],
            value: vec![0; LONGEST],
            path: Vec::new(),
            prefix: 0,
        })
    }

    /// To be called before names of `directory` are read.
    pub(super) fn enter(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        match self.way {
            Way::At => Ok(()),
            Way::WorkingDirectory => rustix::process::fchdir(directory),
            Way::Proc => {
                let mut path = String::new();
                // OK to ignore: writing to a string cannot fail.
                let _ = write!(path, "/proc/self/fd/{}/", directory.as_raw_fd());
                self.path = path.into_bytes();
                self.prefix = self.path.len();
                Ok(())
            }
        }
    }

    /// Reads what there is to know of `name` in `directory`.
    pub(super) fn read(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        kind: Type,
        size: u64,
    ) -> Result<Found, Errno> {
        let mut found = Found::default();
        let len = match self.list(directory, name) {
            Ok(len) => len,
            // A file system without attributes.
            Err(Errno::NOTSUP) => 0,
            Err(error) => return Err(error),
        };
        if len == 0 {
            return Ok(found);
        }
        let list = std::mem::take(&mut self.list);
        let result = list[..len]
            .split_inclusive(|&byte| byte == 0)
            .filter_map(|attribute| CStr::from_bytes_with_nul(attribute).ok())
            .try_for_each(|attribute| {
                self.note(directory, name, attribute, kind, size, &mut found)
            });
        self.list = list;
        result.map(|()| found)
    }

    fn note(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        attribute: &CStr,
        kind: Type,
        size: u64,
        found: &mut Found,
    ) -> Result<(), Errno> {
        match classify(attribute.to_bytes(), self.options) {
            // Exactly "y"; anything else, "x" too, hides nothing below
            // (`ovl_get_opaquedir_val`).
            Class::Opaque if kind == Type::Directory => {
                let opaque = self.get(directory, name, attribute)? == b"y";
                found
                    .flags
                    .set(Flags::OPAQUE, opaque || found.flags.contains(Flags::OPAQUE));
            }
            Class::Redirect if matches!(kind, Type::Directory | Type::File) => {
                found.redirect = Some(self.get(directory, name, attribute)?.into());
                found.flags |= Flags::REDIRECT;
            }
            Class::Metacopy if kind == Type::File => {
                found.flags |= Flags::METACOPY;
                if !valid_metacopy(self.get(directory, name, attribute)?) {
                    found.flags |= Flags::METACOPY_BAD;
                }
            }
            // A file of another size is a file (`ovl_path_check_xwhiteout_xattr`).
            Class::Whiteout if kind == Type::File && size == 0 => {
                found.flags |= Flags::WHITEOUT;
            }
            Class::Shown(head, tail) => {
                let name_shown = [head, tail].concat().into();
                let value = self.get(directory, name, attribute)?.into();
                found.shown.push(Xattr {
                    name: name_shown,
                    value,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn list(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<usize, Errno> {
        if self.way == Way::Proc {
            self.path.truncate(self.prefix);
            self.path.extend_from_slice(name.to_bytes());
        }
        let (way, path) = (self.way, &self.path[..]);
        within(&mut self.list, |list| match way {
            Way::At => xattrat::listxattrat(directory, name, list),
            Way::WorkingDirectory => rustix::fs::llistxattr(name, list),
            Way::Proc => rustix::fs::llistxattr(path, list),
        })
    }

    /// [`Self::list`] of the same name goes before.
    fn get(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        attribute: &CStr,
    ) -> Result<&[u8], Errno> {
        let (way, path) = (self.way, &self.path[..]);
        let len = within(&mut self.value, |value| match way {
            Way::At => xattrat::getxattrat(directory, name, attribute, value),
            Way::WorkingDirectory => rustix::fs::lgetxattr(name, attribute, value),
            Way::Proc => rustix::fs::lgetxattr(path, attribute, value),
        })?;
        Ok(&self.value[..len])
    }
}

/// The kernel allocates as much as it is given room for, every time; few
/// entries have attributes, so little room is tried first.
const USUAL: usize = 512;

fn within(
    room: &mut [u8],
    mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    match call(&mut room[..USUAL]) {
        Err(Errno::RANGE) => call(room),
        other => other,
    }
}
