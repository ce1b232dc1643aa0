//! Trees that several tests build images of.

use super::Maker;
use layermelt_core::tree::{Device, Kind, Tree};

/// One of everything.
pub fn varied() -> Tree {
    varied_for(4096)
}

/// One of everything that blocks of that size hold.
pub fn varied_for(block_size: u32) -> Tree {
    let mut make = Maker::default();
    let small = make.file(b"hello".to_vec());
    let empty = make.file(Vec::new());
    let block = make.file(vec![0x5a; 4096]);
    let large = make.file((0..3_000_000u32).map(|n| (n % 251) as u8).collect());
    let short = make.symlink(&[b'x'; 59]);
    let long = make.symlink(&[b'y'; 60]);
    let longest = make.symlink(&vec![b'z'; block_size as usize - 1]);
    let device = make.node(Kind::CharDevice(Device { major: 5, minor: 1 }));
    let disk = make.node(Kind::BlockDevice(Device {
        major: 259,
        minor: 70000,
    }));
    let fifo = make.node(Kind::Fifo);
    let socket = make.node(Kind::Socket);
    make.xattrs(
        small,
        &[(b"user.a", b"1"), (b"security.capability", &[1; 20])],
    );
    make.xattrs(block, &[(b"user.large", &[7; 3000]), (b"trusted.x", b"")]);
    make.xattrs(large, &[(b"user.large", &[7; 3000]), (b"trusted.x", b"")]);
    make.xattrs(short, &[(b"trusted.on_a_link", &[3; 200])]);
    let sub = make.directory(&[(b"again", small), (b"\xff\xfe not text", empty)]);
    make.xattrs(sub, &[(b"trusted.d", &[9; 100])]);
    make.finish(&[
        (b"small", small),
        (b"block", block),
        (b"large", large),
        (b"short", short),
        (b"long", long),
        (b"longest", longest),
        (b"device", device),
        (b"disk", disk),
        (b"fifo", fifo),
        (b"socket", socket),
        (b"sub", sub),
    ])
}

/// So many files of so many bytes in the root.
pub fn many(files: u32, size: usize) -> Tree {
    let mut make = Maker::default();
    let names: Vec<_> = (0..files)
        .map(|n| format!("file-{n:07}").into_bytes())
        .collect();
    let nodes: Vec<_> = (0..files).map(|n| make.file(vec![n as u8; size])).collect();
    let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(nodes).collect();
    make.finish(&entries)
}
