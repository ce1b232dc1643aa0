//! Digests of layers on disk, and the golden values of the path key.
#![allow(missing_docs)]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use layermelt_core::control::Control;
use layermelt_core::digest::{chain_digest, hex, layer_digest, path_key, stat_fingerprint, Digest};
use layermelt_core::layers::MergeOptions;
use rustix::fs::{Timespec, Timestamps, XattrFlags};

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("layermelt-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    Scratch(path)
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// Sets all times, deepest first.
fn settle(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            settle(&entry.unwrap().path());
        }
    }
    set_time(path, 1_600_000_000, 42);
}

/// A layer made in an order of `names`, with a change at the end.
fn layer(dir: &Path, names: &[&str], change: impl FnOnce(&Path)) -> Digest {
    let root = dir.join("layer");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir(&root).unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    for name in names {
        fs::write(root.join(name), format!("content of {name}").repeat(100)).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::hard_link(root.join("a"), root.join("sub/link")).unwrap();
    symlink("target", root.join("symlink")).unwrap();
    rustix::fs::setxattr(root.join("b"), "user.x", b"1", XattrFlags::empty()).unwrap();
    settle(&root);
    change(&root);
    digest(&root, 2)
}

fn digest(root: &Path, threads: usize) -> Digest {
    layer_digest(root, false, threads, &Control::default()).unwrap()
}

#[test]
fn order_of_making_and_threads_do_not_matter() {
    let dir = scratch("digest-order");
    let one = layer(&dir.0, &["a", "b", "c"], |_| {});
    for threads in [1, 3, 8] {
        assert_eq!(one, digest(&dir.0.join("layer"), threads));
    }
    assert_eq!(one, layer(&dir.0, &["c", "a", "b"], |_| {}));
}

#[test]
fn everything_of_an_entry_matters() {
    let dir = scratch("digest-fields");
    let again = |root: &Path| settle(root);
    type Change<'a> = (&'a str, Box<dyn Fn(&Path)>);
    let changes: Vec<Change<'_>> = vec![
        ("nothing", Box::new(|_| {})),
        (
            "data",
            Box::new(move |root| {
                let mut bytes = fs::read(root.join("c")).unwrap();
                bytes[7] ^= 1;
                fs::write(root.join("c"), bytes).unwrap();
                again(root);
            }),
        ),
        (
            "mode",
            Box::new(|root| {
                fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o4640)).unwrap();
            }),
        ),
        (
            "nanoseconds",
            Box::new(|root| set_time(&root.join("a"), 1_600_000_000, 43)),
        ),
        (
            "time of a symlink",
            Box::new(|root| set_time(&root.join("symlink"), 1, 0)),
        ),
        (
            "name",
            Box::new(move |root| {
                fs::rename(root.join("a"), root.join("A")).unwrap();
                again(root);
            }),
        ),
        (
            "link",
            Box::new(move |root| {
                fs::remove_file(root.join("sub/link")).unwrap();
                fs::copy(root.join("a"), root.join("sub/link")).unwrap();
                again(root);
            }),
        ),
        (
            "target",
            Box::new(move |root| {
                fs::remove_file(root.join("symlink")).unwrap();
                symlink("tarGet", root.join("symlink")).unwrap();
                again(root);
            }),
        ),
        (
            "xattr",
            Box::new(|root| {
                rustix::fs::setxattr(root.join("b"), "user.x", b"2", XattrFlags::empty()).unwrap();
            }),
        ),
        (
            "mark",
            Box::new(|root| {
                let name = "user.overlay.opaque";
                rustix::fs::setxattr(root.join("sub"), name, b"y", XattrFlags::empty()).unwrap();
            }),
        ),
        (
            "root",
            Box::new(|root| {
                fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
            }),
        ),
    ];
    let mut seen = HashSet::new();
    for (name, change) in changes {
        assert!(
            seen.insert(layer(&dir.0, &["a", "b", "c"], change)),
            "{name} makes no difference"
        );
    }
}

#[test]
fn a_chain_is_its_layers_in_order() {
    let dir = scratch("digest-chain");
    let layers = ["one", "two"].map(|name| {
        let path = dir.0.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join(name), name).unwrap();
        path
    });
    let of = |layers: &[PathBuf], options| {
        chain_digest(layers, options, 2, &Control::default()).unwrap()
    };
    let plain = MergeOptions::default();
    let userxattr = MergeOptions {
        userxattr: true,
        ..plain
    };
    let [one, two] = layers;
    let digests = HashSet::from([
        of(&[one.clone(), two.clone()], plain),
        of(&[two.clone(), one.clone()], plain),
        of(std::slice::from_ref(&one), plain),
        of(&[one.clone(), one.clone()], plain),
        of(&[one, two], userxattr),
    ]);
    assert_eq!(digests.len(), 5);
}

/// Made by a program of its own:
/// `let mut h = DefaultHasher::new(); path.hash(&mut h); format!("{:016x}", h.finish())`.
#[test]
fn path_keys_are_those_of_older_agents() {
    for (path, key) in GOLDEN {
        assert_eq!(path_key(path), *key, "{path}");
    }
    assert_eq!(hex(&[0, 0xab]), "00ab");
}

const GOLDEN: &[(&str, &str)] = &[
    ("", "30406ea523c53def"),
    ("/", "cf1d3eb93fcb5a7a"),
    ("/var/lib/docker/overlay2/abc", "9dab79436570ed13"),
    (
        "/var/lib/docker/overlay2/4e9009b6edc1301539e765e584dd54ac478e881b0623934f99d70cd3664ba7b5",
        "ca76da379b14210f",
    ),
    ("/tmp/ä🦀", "0c4dafe0c7a1cb91"),
];

#[test]
fn a_fingerprint_sees_what_an_mtime_hides() {
    let dir = scratch("digest-stat");
    let plain = layer(&dir.0, &["a", "b", "c"], |_| {});
    let root = dir.0.join("layer");
    let of = |layers: &[PathBuf], threads| {
        stat_fingerprint(
            layers,
            MergeOptions::default(),
            threads,
            &Control::default(),
        )
        .unwrap()
    };
    let one = std::slice::from_ref(&root);
    let before = of(one, 1);
    assert_eq!(before, of(one, 3));
    assert_ne!(before, of(&[root.clone(), root.clone()], 2));

    // Reading changes nothing (atime), and neither does time passing.
    fs::read(root.join("a")).unwrap();
    assert_eq!(before, of(one, 2));

    // Same size, same mtime, other data: ctime tells.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let file = fs::File::options().write(true).open(root.join("c"));
    std::os::unix::fs::FileExt::write_at(&file.unwrap(), b"C", 0).unwrap();
    settle(&root);
    assert_ne!(before, of(one, 2));
    assert_ne!(plain, digest(&root, 2));

    // What has no data is told by the metadata.
    let before = of(one, 2);
    fs::remove_file(root.join("symlink")).unwrap();
    symlink("tarGet", root.join("symlink")).unwrap();
    settle(&root);
    assert_ne!(before, of(one, 2));
}
