//! Tests of the check against images of mke2fs with all its options, and
//! against damage.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::ext4::read::bytes::u32_at;
use crate::Error;

/// A file that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("layermelt-check-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn report(&self) -> ImageReport {
        check_image(&self.0, Depth::Surface, &Control::default()).unwrap()
    }

    fn codes(&self) -> Vec<&'static str> {
        self.report()
            .problems
            .iter()
            .map(|problem| problem.code)
            .collect()
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        File::open(&self.0)
            .unwrap()
            .read_exact_at(&mut bytes, at)
            .unwrap();
        bytes
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.0).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    fn debugfs(&self, request: &str) {
        run(Command::new("debugfs")
            .args(["-w", "-R", request])
            .arg(&self.0));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs a program of e2fsprogs; where that is not installed the test fails, for
/// nothing else can tell whether the check is right.
fn run(command: &mut Command) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let out = command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("MKE2FS_SKIP_PROGRESS", "1")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: these tests need e2fsprogs"));
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// `mke2fs OPTIONS image SIZE`, with blocks of 4 KiB unless told otherwise:
/// mke2fs would take 1 KiB for small images.
fn mke2fs(options: &str, size: &str) -> Scratch {
    let image = Scratch::new();
    let options = if options.contains("-b ") {
        options.to_owned()
    } else {
        format!("-b 4096 {options}")
    };
    run(Command::new("mke2fs")
        .args([
            "-q",
            "-F",
            "-U",
            "01234567-89ab-cdef-0123-456789abcdef",
            "-L",
            "a label",
        ])
        .args(options.split_whitespace())
        .arg(&image.0)
        .arg(size));
    image
}

/// Options, size: every layout that mke2fs makes.
const LAYOUTS: &[(&str, &str)] = &[
    ("", "64M"),
    ("-t ext4", "64M"),
    ("-t ext3", "64M"),
    ("-t ext2", "64M"),
    ("-t ext2 -r 0", "8M"),
    ("-t ext4", "100001K"),
    ("-t ext4", "1G"),
    ("-t ext4", "70G"),
    ("-t ext4 -b 1024", "64M"),
    ("-t ext4 -b 1024", "65537K"),
    ("-t ext4 -b 2048", "300M"),
    ("-t ext4 -b 65536", "1G"),
    ("-t ext4 -O ^64bit", "1G"),
    ("-t ext4 -O ^metadata_csum", "1G"),
    ("-t ext4 -O ^metadata_csum,uninit_bg", "1G"),
    ("-t ext4 -O ^metadata_csum,uninit_bg,^64bit", "1G"),
    ("-t ext4 -O ^metadata_csum,^uninit_bg", "1G"),
    ("-t ext4 -O ^flex_bg", "1G"),
    ("-t ext4 -O ^flex_bg,^64bit -b 1024", "200M"),
    ("-t ext4 -O meta_bg,^resize_inode", "10G"),
    ("-t ext4 -O meta_bg,^resize_inode -b 1024", "600M"),
    (
        "-t ext4 -O meta_bg,^resize_inode,^64bit,^flex_bg -b 1024",
        "600M",
    ),
    ("-t ext4 -O meta_bg,^resize_inode,^sparse_super", "10G"),
    ("-t ext4 -O ^sparse_super,^resize_inode", "1G"),
    ("-t ext4 -O sparse_super2", "1G"),
    (
        "-t ext4 -O sparse_super2,meta_bg,^resize_inode -b 1024",
        "600M",
    ),
    ("-t ext4 -O bigalloc -C 16384", "1G"),
    ("-t ext4 -O bigalloc -C 65536", "100001K"),
    ("-t ext4 -O bigalloc -b 1024 -C 4096", "200M"),
    (
        "-t ext4 -O bigalloc,^has_journal,meta_bg,^resize_inode -b 1024 -C 2048",
        "600M",
    ),
    ("-t ext4 -O metadata_csum_seed", "64M"),
    ("-t ext4 -O quota,project", "64M"),
    ("-t ext4 -O inline_data", "64M"),
    ("-t ext4 -O casefold", "64M"),
    ("-t ext4 -O mmp", "64M"),
    ("-t ext4 -O orphan_file", "64M"),
    (
        "-t ext4 -O encrypt,verity,large_dir,ea_inode,stable_inodes",
        "64M",
    ),
    ("-t ext4 -O fast_commit", "256M"),
    ("-t ext4 -O ^has_journal,^resize_inode", "64M"),
    ("-t ext4 -O ^extent,^64bit", "64M"),
    ("-t ext4 -I 128", "64M"),
    ("-t ext4 -I 1024", "64M"),
    ("-t ext4 -N 100", "64M"),
    ("-t ext4 -i 1024", "64M"),
    ("-t ext4 -g 256", "64M"),
    ("-t ext4 -g 8136", "333M"),
    ("-t ext4 -G 1", "1G"),
    ("-t ext4 -G 64", "20G"),
    (
        "-t ext4 -m 0 -E lazy_itable_init=0,packed_meta_blocks=1",
        "1G",
    ),
    ("-t ext4 -E desc_size=128", "1G"),
    ("-t ext4 -E desc_size=1024 -O meta_bg,^resize_inode", "1G"),
];

#[test]
fn images_of_mke2fs_are_sound() {
    let mut failures = Vec::new();
    for &(options, size) in LAYOUTS {
        let image = mke2fs(options, size);
        let report = image.report();
        if !report.is_sound() {
            failures.push(format!("mke2fs {options} {size}: {:#?}", report.problems));
            continue;
        }
        assert!(has_magic(&image.0));
        // dumpe2fs tells the same.
        let told = run(Command::new("dumpe2fs").arg("-h").arg(&image.0));
        let field = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}: {told}"))
                .trim()
                .to_owned()
        };
        assert_eq!(report.label, b"a label");
        assert_eq!(
            field("Filesystem features:"),
            listed(&report.features),
            "{options}"
        );
        assert_eq!(field("Inode count:"), report.inodes.to_string());
        assert_eq!(field("Free inodes:"), report.free_inodes.to_string());
        assert_eq!(field("Block count:"), report.blocks.to_string());
        assert_eq!(field("Free blocks:"), report.free_blocks.to_string());
        assert_eq!(field("Block size:"), report.block_size.to_string());
        if !options.contains("-r 0") {
            assert_eq!(field("Inode size:"), report.inode_size.to_string());
        }
        assert_eq!(field("Filesystem state:"), report.state);
        assert_eq!(report.uuid[..3], [0x01, 0x23, 0x45]);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn listed(features: &[String]) -> String {
    if features.is_empty() {
        return "(none)".into();
    }
    features.join(" ")
}

#[test]
fn stays_sound_in_use() {
    for (options, size) in [("-t ext4", "1G"), ("-t ext4 -b 1024 -O ^flex_bg", "64M")] {
        let image = mke2fs(options, size);
        for n in 0..40 {
            image.debugfs(&format!("mkdir /d{n}"));
        }
        image.debugfs(&format!(
            "write {} /self",
            std::env::current_exe().unwrap().display()
        ));
        assert_eq!(image.report().problems, []);
    }
}

#[test]
fn every_bit_of_checksummed_metadata_counts() {
    for options in [
        "-t ext4",
        "-t ext4 -b 1024 -O metadata_csum_seed,^64bit",
        "-t ext4 -I 128",
    ] {
        let image = mke2fs(options, "64M");
        assert_eq!(image.report().problems, []);
        let block = u64::from(image.report().block_size);
        let descs = if block == 1024 { 2 * block } else { block };
        let size = if options.contains("^64bit") { 32 } else { 64 };
        let first: [u8; 12] = image.read(descs);
        let place = |at: usize| block * u64::from(u32_at(&first, at));
        let inode_size = u64::from(image.report().inode_size);
        let groups = u64::from(image.report().groups);
        for (what, start, len) in [
            ("superblock", 1024, 1024),
            ("descriptors", descs, size * groups),
            ("block bitmap", place(0), block),
            ("inode bitmap", place(4), block),
            ("root inode", place(8) + inode_size, inode_size),
        ] {
            for at in start..start + len {
                let [byte] = image.read(at);
                // Another bit at each byte.
                image.write(at, &[byte ^ (1 << (at % 8))]);
                assert!(
                    !image.report().is_sound(),
                    "{options}: {what}: a flipped bit at {} is not found",
                    at - start
                );
                image.write(at, &[byte]);
            }
        }
        assert_eq!(image.report().problems, []);
    }
}

#[test]
fn descriptors_with_crc16() {
    for options in [
        "-t ext4 -O ^metadata_csum,uninit_bg",
        "-t ext4 -O ^metadata_csum,uninit_bg,^64bit",
    ] {
        let image = mke2fs(options, "300M");
        let size = if options.contains("^64bit") { 32 } else { 64 };
        for at in 4096..4096 + size * u64::from(image.report().groups) {
            let [byte] = image.read(at);
            image.write(at, &[byte ^ (1 << (at % 8))]);
            assert!(image.codes().contains(&"group-checksum"), "{options}: {at}");
            image.write(at, &[byte]);
        }
    }
}

#[test]
fn free_counts_are_counted() {
    // Nothing has a checksum here.
    let image = mke2fs("-t ext4 -O ^metadata_csum,^uninit_bg", "64M");
    let first: [u8; 12] = image.read(4096);
    for (pointer, code) in [(0, "free-blocks"), (4, "free-inodes")] {
        let bitmap = 4096 * u64::from(u32_at(&first, pointer));
        // A bit in the middle that is free.
        let [byte] = image.read(bitmap + 500);
        assert_eq!(byte, 0);
        image.write(bitmap + 500, &[0x10]);
        assert_eq!(image.codes(), [code]);
        image.write(bitmap + 500, &[byte]);
    }
    for (at, code) in [(1024 + 0x0c, "free-blocks"), (1024 + 0x10, "free-inodes")] {
        let [byte] = image.read(at);
        image.write(at, &[byte ^ 1]);
        assert_eq!(image.codes(), [code]);
        image.write(at, &[byte]);
    }
    // The end of the inode bitmap stands for nothing.
    let end = 4096 * u64::from(u32_at(&first, 4)) + 4095;
    image.write(end, &[0x7f]);
    assert_eq!(image.codes(), ["bitmap-padding"]);
}

#[test]
fn the_end_of_a_bitmap_stands_for_nothing() {
    // 16,384 blocks: half of a bitmap.
    let image = mke2fs("-t ext4 -O ^metadata_csum,^uninit_bg", "64M");
    let first: [u8; 12] = image.read(4096);
    let bitmap = 4096 * u64::from(u32_at(&first, 0));
    image.write(bitmap + 4095, &[0x7f]);
    assert_eq!(image.codes(), ["bitmap-padding"]);
    image.write(bitmap + 4095, &[0xff]);
    // More free blocks than the group has.
    image.write(4096 + 0x0c, &16_385u16.to_le_bytes());
    let report = image.report();
    assert!(
        report.problems[0]
            .text
            .contains("16385 free blocks of at most 16384"),
        "{report:?}"
    );
}

#[test]
fn flags_mean_nothing_without_a_checksum() {
    let image = mke2fs("-t ext4 -O ^metadata_csum,^uninit_bg", "64M");
    let first: [u8; 12] = image.read(4096);
    // "Nothing was ever written", which the kernel ignores then.
    image.write(4096 + 0x12, &[3, 0]);
    assert_eq!(image.codes(), [""; 0]);
    image.write(4096 * u64::from(u32_at(&first, 4)) + 500, &[0x10]);
    assert_eq!(image.codes(), ["free-inodes"]);
}

#[test]
fn the_seed_outlives_the_uuid() {
    let image = mke2fs("-t ext4 -O metadata_csum_seed", "64M");
    let new = "11111111-2222-3333-4444-555555555555";
    run(Command::new("tune2fs").args(["-U", new]).arg(&image.0));
    assert_eq!(image.report().problems, []);
    assert_eq!(image.report().uuid[0], 0x11);
}

#[test]
fn a_cut_file_is_no_image() {
    let image = mke2fs("-t ext4", "64M");
    let file = File::options().write(true).open(&image.0).unwrap();
    for (len, code) in [
        (64 * 1024 * 1024 - 1, "truncated"),
        (4096, "truncated"),
        (2047, "too-short"),
        (0, "too-short"),
    ] {
        file.set_len(len).unwrap();
        assert_eq!(image.codes(), [code]);
        assert_eq!(has_magic(&image.0), len > 1080);
    }
}

#[test]
fn what_is_no_ext4() {
    let image = Scratch::new();
    fs::write(&image.0, vec![0x5a; 4096]).unwrap();
    assert_eq!(image.codes(), ["bad-magic"]);
    assert!(!has_magic(&image.0));

    let journal = mke2fs("-O journal_dev -b 4096", "8M");
    assert_eq!(journal.codes(), ["journal-device"]);

    for (path, missing) in [("/dev/null", false), ("/", false), ("/nowhere/x", true)] {
        assert!(!has_magic(Path::new(path)));
        match check_image(Path::new(path), Depth::Surface, &Control::default()) {
            Err(Error::Io { source, .. }) => {
                assert_eq!(source.kind() == std::io::ErrorKind::NotFound, missing);
            }
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[test]
fn unknown_features_are_named() {
    let image = mke2fs("-t ext4 -O ^metadata_csum", "64M");
    image.write(1024 + 0x63, &[0x40]);
    let report = image.report();
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].code, "unknown-feature");
    assert!(
        report.problems[0].text.contains("FEATURE_I30"),
        "{report:?}"
    );
    assert!(report.features.contains(&"FEATURE_I30".into()));
}

#[test]
fn state_and_journal_are_told() {
    let image = mke2fs("-t ext4 -O ^metadata_csum", "64M");
    assert_eq!(image.report().journal, Journal::Internal(8));
    assert_eq!(mke2fs("-t ext2", "8M").report().journal, Journal::None);
    image.debugfs("ssv state 2");
    assert_eq!(image.codes(), ["not-clean", "errors"]);
    assert_eq!(image.report().state, "not clean, with errors");
    image.debugfs("ssv state 1");
    image.debugfs("feature needs_recovery");
    assert_eq!(image.codes(), ["needs-recovery"]);
    image.debugfs("feature -needs_recovery");
    image.debugfs("ssv journal_inum 0");
    assert_eq!(image.codes(), ["no-journal"]);
    image.debugfs("ssv journal_uuid 11111111-2222-3333-4444-555555555555");
    let report = image.report();
    assert_eq!(report.problems, []);
    assert!(matches!(report.journal, Journal::External(uuid) if uuid[0] == 0x11));
}

#[test]
fn positions_are_compared() {
    let image = mke2fs("-t ext4 -O ^metadata_csum,^uninit_bg,^64bit", "64M");
    let saved: [u8; 12] = image.read(4096);
    for (at, block) in [
        (0, 0u32),
        (0, 1),
        (4, 16384),
        (8, 16384 - 100),
        (8, u32::MAX),
    ] {
        image.write(4096 + at, &block.to_le_bytes());
        assert!(image.codes().contains(&"group-position"), "{at} {block}");
        image.write(4096, &saved);
    }
    assert_eq!(image.codes(), [""; 0]);
    // Without flex_bg a group's own are in the group.
    let image = mke2fs(
        "-t ext4 -O ^metadata_csum,^uninit_bg,^64bit,^flex_bg",
        "300M",
    );
    image.write(4096, &40_000u32.to_le_bytes());
    assert!(image.codes().contains(&"group-position"));
}

/// Whatever the bytes are: an answer, soon, and no panic.
#[test]
fn hostile_metadata() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for options in [
        "-t ext4 -O ^metadata_csum,^uninit_bg",
        "-t ext4 -O ^metadata_csum,^uninit_bg,bigalloc -b 1024",
        "-t ext4 -O ^metadata_csum,^uninit_bg,meta_bg,^resize_inode",
        "-t ext4",
    ] {
        let image = mke2fs(options, "64M");
        let saved: [u8; 8192] = image.read(0);
        for _ in 0..3_000 {
            let mut bytes = saved;
            for _ in 0..next() % 6 + 1 {
                // Mostly the superblock's first fields: the geometry.
                let range = [0x60, 0x180, 1024, 7168][(next() % 4) as usize];
                let at = 1024 + (next() % range) as usize;
                bytes[at] = match next() % 4 {
                    0 => 0,
                    1 => 0xff,
                    2 => bytes[at] ^ 1 << (next() % 8),
                    _ => next() as u8,
                };
            }
            // The magic number and a right checksum, to get further.
            bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&MAGIC.to_le_bytes());
            let sum = crate::ext4::read::checksum::crc32c(!0, &bytes[1024..2044]);
            bytes[2044..2048].copy_from_slice(&sum.to_le_bytes());
            image.write(0, &bytes);
            let report = image.report();
            assert!(report.problems.len() <= 100);
        }
    }
}

#[test]
fn can_be_stopped() {
    let image = mke2fs("-t ext4", "64M");
    let control = Control::default();
    control.stop();
    assert!(matches!(
        check_image(&image.0, Depth::Surface, &control),
        Err(Error::Interrupted)
    ));
}
