//! An image that is finished and mounted. Its symlinks are anyone's: every path
//! is opened as by a process whose root the image is.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::elf::{self, Bytes};
use super::{text, Found, Image};
use crate::blockio::{read_exact_at, ReadFault};
use crate::error::{Error, Result};

/// A rename anywhere on the machine may disturb the walk of a `..`: openat2(2).
const ATTEMPTS: usize = 1000;
/// So many names of a directory are looked at; where libraries are, there are fewer.
const MOST_NAMES: usize = 100_000;

pub(super) struct Mounted {
    root: OwnedFd,
    root_path: PathBuf,
    agent: OwnedFd,
    agent_path: PathBuf,
}

#[derive(Clone, PartialEq)]
pub(super) enum MountedFile {
    /// The host's file that is to be put in.
    Agent,
    /// A file of the image.
    At(Vec<u8>),
}

impl Mounted {
    pub(super) fn open(root: &Path, agent: &Path) -> Result<(Self, MountedFile)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root, flags, Mode::empty());
        let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mounted = Self {
            root: opened.map_err(Error::io("open", root))?,
            root_path: root.into(),
            agent: rustix::fs::open(agent, read, Mode::empty())
                .map_err(Error::io("open", agent))?,
            agent_path: agent.into(),
        };
        Ok((mounted, MountedFile::Agent))
    }

    fn open_inside(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    fn host_path(&self, path: &[u8]) -> PathBuf {
        self.root_path.join(text(path).trim_start_matches('/'))
    }
}

impl Image for Mounted {
    type File = MountedFile;

    fn find(&self, path: &[u8]) -> Option<Found<MountedFile>> {
        let opened = self.open_inside(path, OFlags::PATH).ok()?;
        let status = rustix::fs::fstat(&opened).ok()?;
        Some(Found {
            file: MountedFile::At(path.to_vec()),
            regular: FileType::from_raw_mode(status.st_mode).is_file(),
            // OK to convert: twelve bits.
            permissions: (status.st_mode & 0o7777) as u16,
        })
    }

    fn look(&mut self, file: &MountedFile) -> Result<elf::Kind> {
        match file {
            MountedFile::Agent => elf::look(&mut Reader {
                file: &self.agent,
                path: &self.agent_path,
            }),
            MountedFile::At(path) => {
                let host = self.host_path(path);
                // A FIFO or device that took its place would block, or have effects.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                let opened = self
                    .open_inside(path, flags)
                    .map_err(Error::io("open", &host))?;
                elf::look(&mut Reader {
                    file: &opened,
                    path: &host,
                })
            }
        }
    }

    fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let Ok(opened) = self.open_inside(directory, flags) else {
            return Vec::new();
        };
        let Ok(entries) = Dir::new(opened) else {
            return Vec::new();
        };
        let mut names: Vec<Vec<u8>> = entries
            .map_while(|entry| entry.ok())
            .map(|entry| entry.file_name().to_bytes().to_vec())
            .filter(|name| name != b"." && name != b"..")
            .take(MOST_NAMES)
            .collect();
        // As in a merged tree, so that the same program is compared with.
        names.sort_unstable();
        names
    }
}

struct Reader<'a> {
    file: &'a OwnedFd,
    path: &'a Path,
}

impl Bytes for Reader<'_> {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<bool> {
        // pread takes no other offset.
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Ok(false);
        }
        match read_exact_at(self.file, out, offset) {
            Ok(()) => Ok(true),
            Err(ReadFault::Short(_)) => Ok(false),
            Err(ReadFault::Io(errno)) => Err(Error::io("read", self.path)(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{symlink, PermissionsExt};

    use super::super::check_mounted;
    use super::super::elf::tests::elf;
    use super::*;

    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl Scratch {
        /// `image/` with an x86-64 `/bin/sh`, and `host/` beside it.
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("layermelt-mounted-{name}-{}", std::process::id()));
            let scratch = Self(path);
            std::fs::create_dir_all(scratch.0.join("host")).unwrap();
            scratch.put("image/usr/bin/sh", &elf(2, false, X86_64, None));
            symlink("/usr/bin", scratch.0.join("image/bin")).unwrap();
            scratch
        }

        fn put(&self, path: &str, bytes: &[u8]) {
            let full = self.0.join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(&full, bytes).unwrap();
            std::fs::set_permissions(&full, std::fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn reason(&self, agent: &[u8]) -> Option<String> {
            self.put("agent", agent);
            match check_mounted(&self.0.join("image"), &self.0.join("agent"), "it", 0o755) {
                Ok(()) => None,
                Err(Error::Agent { path, reason }) => {
                    assert_eq!(path, "it");
                    Some(reason)
                }
                Err(other) => panic!("{other}"),
            }
        }

        #[track_caller]
        fn refused(&self, agent: &[u8], words: &str) {
            let reason = self.reason(agent).expect("refused");
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn the_machine_is_the_images() {
        let image = Scratch::new("machine");
        assert_eq!(image.reason(&elf(2, false, X86_64, None)), None);
        image.refused(
            &elf(2, false, AARCH64, None),
            "but the image's /bin/sh for x86-64",
        );
        image.refused(b"text", "is neither an ELF program");
        std::fs::remove_file(image.0.join("image/usr/bin/sh")).unwrap();
        image.put(
            "image/usr/lib/aarch64-linux-gnu/libc.so.6",
            &elf(2, false, AARCH64, None),
        );
        image.refused(&elf(2, false, X86_64, None), "libc.so.6 for AArch64");
        assert_eq!(image.reason(&elf(2, false, AARCH64, None)), None);
    }

    #[test]
    fn not_executable() {
        let image = Scratch::new("mode");
        image.put("agent", &elf(2, false, X86_64, None));
        let (root, agent) = (image.0.join("image"), image.0.join("agent"));
        assert!(matches!(
            check_mounted(&root, &agent, "it", 0o644),
            Err(Error::Agent { .. })
        ));
    }

    #[test]
    fn an_interpreter_is_the_images_and_not_the_hosts() {
        let image = Scratch::new("interpreter");
        let host = image.0.join("host/ld.so");
        image.put("host/ld.so", &elf(2, false, X86_64, None));
        let agent = elf(2, false, X86_64, Some("/lib/ld.so"));
        image.refused(&agent, "started by /lib/ld.so, which does not exist");
        // There on the host, and so not in the image.
        std::fs::create_dir(image.0.join("image/lib")).unwrap();
        symlink(&host, image.0.join("image/lib/ld.so")).unwrap();
        image.refused(&agent, "does not exist in the image");
        std::fs::remove_file(image.0.join("image/lib/ld.so")).unwrap();
        symlink("../../host/ld.so", image.0.join("image/lib/ld.so")).unwrap();
        image.refused(&agent, "does not exist in the image");
        // "..": the image's root is its own parent.
        image.put("image/host/ld.so", &elf(2, false, X86_64, None));
        assert_eq!(image.reason(&agent), None);
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let image = Scratch::new("fifo");
        let shell = image.0.join("image/usr/bin/sh");
        std::fs::remove_file(&shell).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &shell,
            FileType::Fifo,
            Mode::from(0o755),
            0,
        )
        .unwrap();
        assert_eq!(image.reason(&elf(2, false, AARCH64, None)), None);
        image.refused(b"#!/bin/sh\n", "is no regular file in the image");
    }
}
