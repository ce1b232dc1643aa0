//! Can the image run the agent? Asked before anything is written.
//!
//! An agent of another architecture, or one that is linked with libraries the
//! image does not have, is put in without complaint and then ends the guest's
//! kernel with "no working init found". The files that tell are all in the
//! merged tree: the agent itself, what it names as its interpreter, and a
//! program of the image's own to compare with.

mod elf;
mod merged;
mod mounted;

use std::path::Path;

use crate::blockio::ContentStore;
use crate::error::{Error, Result};
use crate::tree::{Content, Kind, NodeId, Tree};
use elf::Machine;
use merged::Merged;
use mounted::Mounted;

/// The kernel follows as many interpreters of interpreters (`exec_binprm`).
const MOST_INTERPRETERS: usize = 5;
/// Programs that most images have.
const PROGRAMS: [&[u8]; 4] = [b"/bin/sh", b"/bin/busybox", b"/usr/bin/env", b"/bin/bash"];
/// Where an image without those keeps its libc, if it has one.
const LIBRARIES: [&[u8]; 4] = [b"/lib64", b"/lib", b"/usr/lib64", b"/usr/lib"];
/// Beginnings of the names of a libc and of its interpreter.
const LIBC: [&[u8]; 6] = [
    b"ld-linux",
    b"ld-musl-",
    b"ld64.so",
    b"ld.so",
    b"libc.so.6",
    b"libc.musl-",
];

/// Sees that the kernel of a guest will be able to start `agent` from this
/// tree: it is executable, an ELF program of the same machine as the image's
/// own and static or with an interpreter that exists, or a script whose
/// interpreter does.
///
/// # Errors
/// [`Error::Agent`] when not; others when a file cannot be read.
pub fn check(tree: &Tree, store: &dyn ContentStore, agent: NodeId) -> Result<()> {
    let permissions = tree.node(agent).metadata.permissions;
    let named = image_path(tree, agent);
    Examination {
        image: Merged::new(tree, store),
        agent,
        named,
    }
    .run(permissions)
}

/// As [`check`], for a finished image that is mounted at `root`. The agent is
/// the host's file `agent`, which is going to have those permissions; `named` is
/// what messages call it. No path leads out of `root`.
///
/// # Errors
/// [`Error::Agent`] when not; others when a file cannot be read.
pub fn check_mounted(root: &Path, agent: &Path, named: &str, permissions: u16) -> Result<()> {
    let (image, agent) = Mounted::open(root, agent)?;
    let named = named.into();
    Examination {
        image,
        agent,
        named,
    }
    .run(permissions)
}

/// An image's files, as far as the question needs them.
trait Image {
    type File: Clone + PartialEq;

    /// The file at a path, through symlinks, which lead nowhere out of the image.
    fn find(&self, path: &[u8]) -> Option<Found<Self::File>>;
    /// What `exec` would make of a regular file.
    fn look(&mut self, file: &Self::File) -> Result<elf::Kind>;
    /// The names in a directory; none where there is no directory.
    fn names(&self, directory: &[u8]) -> Vec<Vec<u8>>;
}

struct Found<F> {
    file: F,
    regular: bool,
    permissions: u16,
}

struct Examination<I: Image> {
    image: I,
    agent: I::File,
    named: String,
}

impl<I: Image> Examination<I> {
    fn run(mut self, permissions: u16) -> Result<()> {
        if permissions & 0o111 == 0 {
            return Err(self.refuse("is not executable; give it a mode such as 0755".into()));
        }
        // The agent, then its interpreter, and that one's.
        let mut file = self.agent.clone();
        let mut subject = String::new();
        for _ in 0..=MOST_INTERPRETERS {
            let (interpreter, what, last) = match self.image.look(&file)? {
                elf::Kind::Neither(reason) => return Err(self.refuse(format!("{subject}{reason}"))),
                elf::Kind::Script(path) => {
                    let what = format!("{subject}is a script for {}", text(&path));
                    (path, what, false)
                }
                elf::Kind::Program(program) => {
                    if let Some((path, own)) =
                        self.machine()?.filter(|(_, own)| *own != program.machine)
                    {
                        return Err(self.refuse(format!(
                            "{subject}is built for {}, but the image's {path} for {}; give an agent of the \
                             image's architecture",
                            program.machine.name(),
                            own.name()
                        )));
                    }
                    let Some(path) = program.interpreter else {
                        return Ok(());
                    };
                    let what = format!(
                        "{subject}is dynamically linked and started by {}",
                        text(&path)
                    );
                    (path, what, true)
                }
            };
            match self.executable(&interpreter) {
                Ok(_) if last => return Ok(()),
                Ok(found) => file = found,
                Err(lacks) => {
                    let advice = if last {
                        "; give a statically linked agent"
                    } else {
                        ""
                    };
                    return Err(self.refuse(format!("{what}, which {lacks}{advice}")));
                }
            }
            subject = format!("{what}, which ");
        }
        Err(self.refuse("is a script whose interpreters are scripts without end".into()))
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Agent {
            path: self.named.clone(),
            reason,
        }
    }

    /// The file at `path` if it can be executed, else what is the matter.
    fn executable(&self, path: &[u8]) -> Result<I::File, &'static str> {
        let found = self.image.find(path).ok_or("does not exist in the image")?;
        if !found.regular {
            Err("is no regular file in the image")
        } else if found.permissions & 0o111 == 0 {
            Err("is not executable in the image")
        } else {
            Ok(found.file)
        }
    }

    /// What a program of the image's own is built for, and its path. `None`
    /// for an image without any.
    fn machine(&mut self) -> Result<Option<(String, Machine)>> {
        for path in PROGRAMS {
            if let Some(machine) = self.machine_of(path)? {
                return Ok(Some((text(path), machine)));
            }
        }
        for path in LIBRARIES {
            if let Some(found) = self.libc_in(path)? {
                return Ok(Some(found));
            }
            // Debian keeps it one level further down.
            for name in self.image.names(path) {
                if let Some(found) = self.libc_in(&join(path, &name))? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn libc_in(&mut self, directory: &[u8]) -> Result<Option<(String, Machine)>> {
        for name in self.image.names(directory) {
            if !LIBC.iter().any(|known| name.starts_with(known)) {
                continue;
            }
            let path = join(directory, &name);
            if let Some(machine) = self.machine_of(&path)? {
                return Ok(Some((text(&path), machine)));
            }
        }
        Ok(None)
    }

    fn machine_of(&mut self, path: &[u8]) -> Result<Option<Machine>> {
        let Some(found) = self.image.find(path) else {
            return Ok(None);
        };
        if !found.regular || found.file == self.agent {
            return Ok(None);
        }
        Ok(match self.image.look(&found.file)? {
            elf::Kind::Program(program) => Some(program.machine),
            elf::Kind::Script(_) | elf::Kind::Neither(_) => None,
        })
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    [directory, b"/", name].concat()
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The agent's host path, which the user gave; else its path in the image.
fn image_path(tree: &Tree, agent: NodeId) -> String {
    if let Kind::File { content, .. } = tree.node(agent).kind {
        if let Content::Host { path, .. } = tree.content(content) {
            return path.display().to_string();
        }
    }
    tree.display_path(agent)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
