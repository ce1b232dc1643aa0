//! Can the image run the agent? Asked before anything is written.
//!
//! An agent of another architecture, or one that is linked with libraries the
//! image does not have, is put in without complaint and then ends the guest's
//! kernel with "no working init found". The files that tell are all in the
//! merged tree: the agent itself, what it names as its interpreter, and a
//! program of the image's own to compare with.

mod elf;

use std::os::fd::{AsFd, OwnedFd};

use crate::blockio::{read_exact_at, ContentStore, Opened, Opener, ReadFault};
use crate::error::{Error, Result};
use crate::tree::{Content, ContentId, Kind, NodeId, Tree};
use elf::{Bytes, Machine};

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
    let mut image = Image {
        tree,
        opener: store.opener(tree),
    };
    let refuse = |reason: String| Error::Agent {
        path: image_path(tree, agent),
        reason,
    };
    if tree.node(agent).metadata.permissions & 0o111 == 0 {
        return Err(refuse(
            "is not executable; give it a mode such as 0755".into(),
        ));
    }
    // The agent, then its interpreter, and that one's.
    let mut node = agent;
    let mut subject = String::new();
    for _ in 0..=MOST_INTERPRETERS {
        let (interpreter, what, last) = match image.look(node)? {
            elf::Kind::Neither(reason) => return Err(refuse(format!("{subject}{reason}"))),
            elf::Kind::Script(path) => {
                let what = format!("{subject}is a script for {}", text(&path));
                (path, what, false)
            }
            elf::Kind::Program(program) => {
                if let Some((path, own)) = image
                    .machine(agent)?
                    .filter(|(_, own)| *own != program.machine)
                {
                    return Err(refuse(format!(
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
        match image.executable(&interpreter) {
            Ok(_) if last => return Ok(()),
            Ok(found) => node = found,
            Err(lacks) => {
                let advice = if last {
                    "; give a statically linked agent"
                } else {
                    ""
                };
                return Err(refuse(format!("{what}, which {lacks}{advice}")));
            }
        }
        subject = format!("{what}, which ");
    }
    Err(refuse(
        "is a script whose interpreters are scripts without end".into(),
    ))
}

/// The tree, and one way to its files' data.
struct Image<'a> {
    tree: &'a Tree,
    opener: Box<dyn Opener + 'a>,
}

impl Image<'_> {
    /// The inode at `path` if it can be executed, else what is the matter.
    fn executable(&self, path: &[u8]) -> Result<NodeId, &'static str> {
        let node = self
            .tree
            .resolve(path)
            .ok_or("does not exist in the image")?;
        let inode = self.tree.node(node);
        match inode.kind {
            Kind::File { .. } if inode.metadata.permissions & 0o111 != 0 => Ok(node),
            Kind::File { .. } => Err("is not executable in the image"),
            _ => Err("is no regular file in the image"),
        }
    }

    fn look(&mut self, node: NodeId) -> Result<elf::Kind> {
        let Kind::File { size, content } = self.tree.node(node).kind else {
            return Ok(elf::Kind::Neither("is no regular file"));
        };
        let source = match self.opener.open(content, size)? {
            Opened::File(file) => Source::File(file),
            Opened::Bytes(bytes) => Source::Bytes(bytes.into()),
        };
        elf::look(&mut Reader {
            image: self,
            content,
            size,
            source,
        })
    }

    /// What a program of the image's own is built for, and its path. `None`
    /// for an image without any.
    fn machine(&mut self, agent: NodeId) -> Result<Option<(String, Machine)>> {
        for path in PROGRAMS {
            if let Some(node) = self.tree.resolve(path) {
                if let Some(machine) = self.machine_of(node, agent)? {
                    return Ok(Some((text(path), machine)));
                }
            }
        }
        for path in LIBRARIES {
            if let Some(found) = self.libc_in(path, agent)? {
                return Ok(Some(found));
            }
            // Debian keeps it one level further down.
            for name in self.names(path) {
                if let Some(found) = self.libc_in(&join(path, &name), agent)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn libc_in(&mut self, directory: &[u8], agent: NodeId) -> Result<Option<(String, Machine)>> {
        for name in self.names(directory) {
            if !LIBC.iter().any(|known| name.starts_with(known)) {
                continue;
            }
            let path = join(directory, &name);
            if let Some(node) = self.tree.resolve(&path) {
                if let Some(machine) = self.machine_of(node, agent)? {
                    return Ok(Some((text(&path), machine)));
                }
            }
        }
        Ok(None)
    }

    /// The names in a directory; none where there is no directory.
    fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let node = self.tree.resolve(directory);
        let entries = node.and_then(|node| self.tree.directory(node));
        let entries = entries.map_or(&[][..], |directory| &directory.entries);
        entries
            .iter()
            .map(|entry| self.tree.name(entry.name).to_vec())
            .collect()
    }

    fn machine_of(&mut self, node: NodeId, agent: NodeId) -> Result<Option<Machine>> {
        if node == agent || !matches!(self.tree.node(node).kind, Kind::File { .. }) {
            return Ok(None);
        }
        Ok(match self.look(node)? {
            elf::Kind::Program(program) => Some(program.machine),
            elf::Kind::Script(_) | elf::Kind::Neither(_) => None,
        })
    }
}

enum Source {
    File(OwnedFd),
    Bytes(Box<[u8]>),
}

struct Reader<'a, 'b> {
    image: &'a Image<'b>,
    content: ContentId,
    size: u64,
    source: Source,
}

impl Bytes for Reader<'_, '_> {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<bool> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Ok(false);
        }
        match &self.source {
            Source::Bytes(bytes) => {
                // OK to convert: within the bytes.
                let start = offset as usize;
                out.copy_from_slice(&bytes[start..start + out.len()]);
                Ok(true)
            }
            Source::File(file) => match read_exact_at(file.as_fd(), out, offset) {
                Ok(()) => Ok(true),
                Err(ReadFault::Short(_)) => Ok(false),
                Err(fault) => {
                    Err(fault.into_error(self.size, || self.image.opener.path(self.content)))
                }
            },
        }
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
