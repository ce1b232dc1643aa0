//! Tests of the agent check, on trees in memory.

use super::elf::tests::elf;
use super::*;
use crate::blockio::changing::Changing;
use crate::blockio::{Opened, Opener};
use crate::tree::inject::{Injection, InjectionSource};
use crate::tree::ContentId;
use crate::tree::{Metadata, Node, Timestamp, XattrSetId};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

struct InMemory;
struct Reads<'a>(&'a Tree);

impl ContentStore for InMemory {
    fn opener<'a>(&'a self, tree: &'a Tree) -> Box<dyn Opener + 'a> {
        Box::new(Reads(tree))
    }
}

impl Opener for Reads<'_> {
    fn open(&mut self, content: ContentId) -> Result<Opened<'_>> {
        match self.0.content(content) {
            Content::Bytes(bytes) => Ok(Opened::Bytes(bytes)),
            other => panic!("not in memory: {other:?}"),
        }
    }

    fn still_same(&self, _content: ContentId, _size: u64, _file: &OwnedFd) -> Result<()> {
        Ok(())
    }

    fn path(&self, _content: ContentId) -> PathBuf {
        PathBuf::new()
    }
}

fn tree() -> Tree {
    Tree::new(Metadata {
        mtime: Timestamp::default(),
        uid: 0,
        gid: 0,
        permissions: 0o755,
        xattrs: XattrSetId::EMPTY,
        flags: crate::tree::InodeFlags::empty(),
    })
}

fn put(tree: &mut Tree, path: &str, bytes: &[u8], permissions: u16) -> NodeId {
    tree.inject(&Injection {
        source: InjectionSource::Bytes(bytes.into()),
        destination: path.as_bytes().to_vec(),
        permissions,
        uid: 0,
        gid: 0,
    })
    .unwrap()
}

fn link(tree: &mut Tree, path: &str, target: &str) {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = tree.resolve(parent.as_bytes()).unwrap();
    let metadata = tree.node(NodeId::ROOT).metadata;
    let kind = Kind::Symlink(tree.add_name(target.as_bytes()).unwrap());
    let node = Node {
        kind,
        metadata,
        links: 0,
    };
    let node = tree.add_node(node).unwrap();
    tree.link(parent, name.as_bytes(), node).unwrap();
}

/// Why not; `None` when it can be run.
fn reason(mut tree: Tree, agent: &[u8]) -> Option<String> {
    let agent = put(&mut tree, "/sbin/vm-agent", agent, 0o755);
    match check(&tree, &InMemory, agent) {
        Ok(()) => None,
        Err(Error::Agent { path, reason }) => {
            assert_eq!(path, "/sbin/vm-agent");
            Some(reason)
        }
        Err(other) => panic!("{other}"),
    }
}

#[track_caller]
fn refused(tree: Tree, agent: &[u8], words: &str) {
    let reason = reason(tree, agent).expect("refused");
    assert!(reason.contains(words), "{reason}");
}

const X86_64: u16 = 62;
const AARCH64: u16 = 183;

#[test]
fn static_and_of_the_images_machine() {
    let mut image = tree();
    put(
        &mut image,
        "/usr/bin/sh",
        &elf(2, false, X86_64, Some("/lib/ld.so")),
        0o755,
    );
    link(&mut image, "/bin", "usr/bin");
    assert_eq!(reason(image.clone(), &elf(2, false, X86_64, None)), None);
    let other = elf(2, false, AARCH64, None);
    refused(
        image.clone(),
        &other,
        "is built for AArch64 (64 bits, little-endian), but the image's /bin/sh for x86-64",
    );
    refused(image.clone(), &elf(1, false, 3, None), "x86 (32 bits");
    refused(image, &elf(2, true, X86_64, None), "big-endian");
}

#[test]
fn an_image_without_a_shell_has_a_libc() {
    for libc in [
        "/lib/ld-musl-aarch64.so.1",
        "/usr/lib64/ld-linux-aarch64.so.1",
        "/usr/lib/aarch64-linux-gnu/libc.so.6",
    ] {
        let mut image = tree();
        put(&mut image, "/bin/sh", b"#!/bin/busybox\n", 0o755);
        put(&mut image, libc, &elf(2, false, AARCH64, None), 0o755);
        assert_eq!(reason(image.clone(), &elf(2, false, AARCH64, None)), None);
        refused(image, &elf(2, false, X86_64, None), libc);
    }
}

#[test]
fn an_image_of_nothing_takes_any_machine() {
    assert_eq!(reason(tree(), &elf(2, false, AARCH64, None)), None);
    // But an agent is no measure for itself.
    let mut image = tree();
    put(&mut image, "/bin/x", b"", 0o755);
    let agent = put(&mut image, "/bin/sh", &elf(2, false, AARCH64, None), 0o755);
    check(&image, &InMemory, agent).unwrap();
}

#[test]
fn an_interpreter_must_exist() {
    let agent = elf(2, false, X86_64, Some("/lib64/ld-linux-x86-64.so.2"));
    refused(
        tree(),
        &agent,
        "is dynamically linked and started by /lib64/ld-linux-x86-64.so.2, which does not exist",
    );

    let mut image = tree();
    put(
        &mut image,
        "/usr/lib/ld.so",
        &elf(2, false, X86_64, None),
        0o755,
    );
    put(&mut image, "/etc/x", b"", 0o644);
    link(&mut image, "/lib64", "/etc/../usr/lib");
    refused(image.clone(), &agent, "does not exist");
    link(&mut image, "/usr/lib/ld-linux-x86-64.so.2", "/lib64/ld.so");
    assert_eq!(reason(image.clone(), &agent), None);

    let mut plain = tree();
    put(
        &mut plain,
        "/lib64/ld-linux-x86-64.so.2",
        &elf(2, false, X86_64, None),
        0o644,
    );
    refused(plain, &agent, "is not executable in the image");
    let mut directory = tree();
    put(&mut directory, "/lib64/ld-linux-x86-64.so.2/x", b"", 0o644);
    refused(directory, &agent, "is no regular file in the image");
    let mut looped = tree();
    link(&mut looped, "/lib64", "/lib64");
    refused(looped, &agent, "does not exist");
}

#[test]
fn scripts_need_their_interpreter() {
    let mut image = tree();
    refused(
        image.clone(),
        b"#!/bin/sh\n",
        "is a script for /bin/sh, which does not exist in the image",
    );
    put(
        &mut image,
        "/bin/sh",
        &elf(2, false, X86_64, Some("/lib/ld.so")),
        0o755,
    );
    refused(
        image.clone(),
        b"#!/bin/sh\n",
        "is a script for /bin/sh, which is dynamically linked and started by /lib/ld.so, which does not exist",
    );
    put(
        &mut image,
        "/lib/ld.so",
        &elf(2, false, X86_64, None),
        0o755,
    );
    assert_eq!(reason(image.clone(), b"#!/bin/sh -e\n"), None);
    put(&mut image, "/bin/other", b"#!/bin/sh\n", 0o755);
    assert_eq!(reason(image.clone(), b"#!/bin/other\n"), None);
    put(&mut image, "/bin/round", b"#!/bin/round\n", 0o755);
    refused(image, b"#!/bin/round\n", "without end");
}

#[test]
fn what_cannot_be_executed() {
    refused(
        tree(),
        b"no program",
        "is neither an ELF program nor a #! script",
    );
    let mut image = tree();
    let agent = put(
        &mut image,
        "/sbin/vm-agent",
        &elf(2, false, X86_64, None),
        0o644,
    );
    let error = check(&image, &InMemory, agent).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the agent /sbin/vm-agent is not executable"),
        "{error}"
    );
}

#[test]
fn an_agent_that_changed_is_not_judged() {
    let path = std::env::temp_dir().join(format!("layermelt-agent-{}", std::process::id()));
    let program = elf(2, false, X86_64, None);
    let mut image = tree();
    let agent = put(&mut image, "/sbin/vm-agent", &program, 0o755);
    // What could be run, and what could not.
    for bytes in [&program[..], &program[..20], b"no program"] {
        std::fs::write(&path, bytes).unwrap();
        let judged = check(&image, &Changing(&path), agent);
        assert!(
            matches!(judged, Err(Error::LayerChanged { .. })),
            "{judged:?}"
        );
    }
    std::fs::remove_file(&path).unwrap();
}
