//! The scan: threads, depth, ways to read attributes, what cannot be read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, CWD};

use super::random;
use super::support::{is_root, lines, skip, Chain};
use crate::control::Control;
use crate::error::Error;
use crate::layers::xattrs::Way;
use crate::layers::{merge, MergeOptions};

#[test]
fn the_number_of_threads_changes_nothing() {
    for seed in 300..320 {
        let mut chain = random::chain(seed);
        let described = [1, 2, 8].map(|threads| {
            chain.threads = threads;
            chain.merge().unwrap().describe()
        });
        assert_eq!(described[0], described[1]);
        assert_eq!(described[0], described[2]);
    }
}

#[test]
fn a_large_directory_is_shared_and_stays_in_order() {
    let mut chain = Chain::new(2);
    for at in 0..9000 {
        fs::write(chain.path(0, &format!("n{at}")), "").unwrap();
    }
    for at in 4000..9000 {
        fs::create_dir(chain.path(0, &format!("d{at}"))).unwrap();
        fs::write(chain.path(1, &format!("n{at}")), "u").unwrap();
    }
    chain
        .whiteout(1, "n3")
        .dir(0, "d4000/below")
        .file(1, "d8999/above", "");
    let described = [1, 2, 8].map(|threads| {
        chain.threads = threads;
        let merged = chain.merge().unwrap();
        assert_eq!(
            merged
                .tree
                .directory(merged.tree.root())
                .unwrap()
                .entries
                .len(),
            13_999
        );
        merged.at("d4000/below");
        merged.at("d8999/above");
        super::slots::check(&merged);
        merged.describe()
    });
    assert_eq!(described[0], described[1]);
    assert_eq!(described[0], described[2]);
}

#[test]
fn all_ways_to_read_attributes_agree() {
    let chain = Chain::new(2);
    chain
        .file(0, "d/below", "")
        .file(1, "d/above", "")
        .mark(1, "d", "opaque", b"y");
    chain.mark(1, "", "opaque", b"y");
    let long = vec![b'v'; 900];
    chain
        .file(1, "f", "")
        .xattr(1, "f", "user.one", b"1")
        .xattr(1, "f", "user.long", &long);
    for number in 0..30 {
        chain.xattr(
            1,
            "f",
            &format!("user.a-rather-long-name-of-attribute-{number}"),
            b"",
        );
    }
    if is_root() {
        chain.symlink(1, "l", "t").xattr(1, "l", "trusted.x", b"2");
    }
    let best = chain.merge().unwrap();
    assert_eq!(
        best.show()
            .iter()
            .filter(|line| line.starts_with("d/"))
            .count(),
        2
    );
    assert_eq!(best.xattrs("f").len(), 32);
    let ways = [Way::At, Way::WorkingDirectory, Way::Proc];
    for way in ways {
        let root = rustix::fs::open(&chain.layers[0], OFlags::DIRECTORY, Mode::empty()).unwrap();
        if way == Way::At && Way::probe(std::os::fd::AsFd::as_fd(&root)) != Way::At {
            skip(
                "all_ways_to_read_attributes_agree (listxattrat)",
                "Linux 6.13",
            );
            continue;
        }
        let merged = chain.merge_in_way(Some(way), 2).unwrap();
        assert_eq!(merged.describe(), best.describe(), "{way:?}");
        assert_eq!(merged.warnings, best.warnings, "{way:?}");
    }
}

#[test]
fn reading_by_working_directory_leaves_that_of_the_process_alone() {
    let before = std::env::current_dir().unwrap();
    let chain = Chain::new(1);
    chain.file(0, "a/b/c", "");
    chain.merge_in_way(Some(Way::WorkingDirectory), 1).unwrap();
    assert_eq!(std::env::current_dir().unwrap(), before);
}

/// A chain of directories, each named by `name`, made by descriptor.
fn dig(top: &std::path::Path, name: &str, depth: usize) {
    let mut at = rustix::fs::open(top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..depth {
        rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        // A second directory at each level, for the way back up.
        rustix::fs::mkdirat(&at, "~side", Mode::RWXU).unwrap();
        let next = rustix::fs::openat(&at, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        if level % 100 == 0 {
            let path = format!("f{level}");
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let file = rustix::fs::openat(&at, path, flags, Mode::RUSR).unwrap();
            rustix::io::write(&file, b"x").unwrap();
        }
        at = next;
    }
}

/// `remove_dir_all` keeps a descriptor for each level.
fn fill_in(top: &std::path::Path, name: &str) {
    let (deep, up) = (top.join(name), top.join("up"));
    while fs::rename(deep.join(name), &up).is_ok() {
        fs::remove_dir_all(&deep).unwrap();
        fs::rename(&up, &deep).unwrap();
    }
}

#[test]
fn trees_deeper_than_path_max() {
    for (name, depth) in [("n".repeat(100), 400), ("x".into(), 12_000)] {
        let chain = Chain::new(2);
        dig(&chain.layers[0], &name, depth);
        dig(&chain.layers[1], &name, depth / 2);
        let merged = chain.merge().unwrap();
        let counts = merged.tree.counts();
        assert_eq!(counts.directories, 1 + 2 * depth as u64);
        assert_eq!(counts.files, depth.div_ceil(100) as u64);
        assert_eq!(merged.open_all(), depth.div_ceil(100));
        for layer in &chain.layers {
            fill_in(layer, &name);
        }
    }
}

#[test]
fn missing_layers_and_files_for_layers() {
    let chain = Chain::new(2);
    fs::remove_dir(&chain.layers[0]).unwrap();
    let text = chain.error();
    assert!(text.contains("layer0") && text.contains("open"), "{text}");
    fs::write(&chain.layers[0], "").unwrap();
    assert!(chain.error().contains("layer0"));
    let none = merge(&[], MergeOptions::default(), 1, &Control::default(), |_| {});
    assert!(matches!(none, Err(Error::InvalidOption { .. })));
}

#[test]
fn overlapping_layers_are_refused_as_by_the_kernel() {
    let mut chain = Chain::new(2);
    chain.dir(0, "a/b").dir(1, "c");
    let (twice, inner) = (chain.layers[1].clone(), chain.path(0, "a/b"));
    chain.layers.push(twice);
    assert!(chain.error().contains("another layer"));
    chain.layers[2] = inner;
    let text = chain.error();
    assert!(
        text.contains("layer0/a/b") && text.contains("within"),
        "{text}"
    );
}

/// Runs `work` in a thread without any privilege.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let (uid, gid) = (65_534, 65_534);
                let gid = rustix::process::Gid::from_raw(gid);
                let uid = rustix::process::Uid::from_raw(uid);
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

#[test]
fn all_that_cannot_be_read_is_told_at_once() {
    if !is_root() {
        return skip(
            "all_that_cannot_be_read_is_told_at_once",
            "root, to become another user",
        );
    }
    let chain = Chain::new(2);
    chain
        .dir(0, "closed")
        .dir(1, "p/closed")
        .dir(0, "closed-and-hidden")
        .file(1, "closed-and-hidden", "1")
        .file(0, "secret", "1")
        .file(0, "hidden", "1");
    chain
        .file(0, "p/secret", "1")
        .file(1, "hidden", "new")
        .file(1, "open", "1");
    chain.file(0, "empty", "");
    let private = fs::Permissions::from_mode(0o000);
    for (layer, path) in [
        (0, "closed"),
        (0, "closed-and-hidden"),
        (1, "p/closed"),
        (0, "secret"),
        (0, "p/secret"),
        (0, "hidden"),
        (0, "empty"),
    ] {
        fs::set_permissions(chain.path(layer, path), private.clone()).unwrap();
    }
    let unreadable = |chain: &Chain| -> Vec<PathBuf> {
        match as_nobody(|| chain.merge().map(|merged| merged.show())) {
            Err(Error::Unreadable { paths, more: 0 }) => {
                paths.into_iter().map(|one| one.path).collect()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        unreadable(&chain),
        [
            chain.path(0, "closed"),
            chain.path(0, "p/secret"),
            chain.path(0, "secret"),
            chain.path(1, "p/closed"),
        ]
    );
    for (layer, path) in [(0, "closed"), (1, "p/closed")] {
        fs::remove_dir(chain.path(layer, path)).unwrap();
    }
    // What is hidden, and empty files, are never read.
    assert_eq!(
        unreadable(&chain),
        [chain.path(0, "p/secret"), chain.path(0, "secret")]
    );
    for path in ["secret", "p/secret"] {
        fs::set_permissions(chain.path(0, path), fs::Permissions::from_mode(0o604)).unwrap();
    }
    let (shown, warnings) = as_nobody(|| {
        let merged = chain.merge().unwrap();
        (merged.show(), merged.warnings)
    });
    let expected = lines(&[
        "closed-and-hidden=1",
        "empty=",
        "hidden=new",
        "open=1",
        "p/",
        "p/secret=1",
        "secret=1",
    ]);
    assert_eq!(
        shown.iter().map(|line| line.as_str()).collect::<Vec<_>>(),
        expected
    );
    assert!(warnings[0].contains("CAP_SYS_ADMIN"), "{warnings:?}");
    // A layer's own directory.
    fs::set_permissions(&chain.layers[1], private).unwrap();
    assert_eq!(unreadable(&chain), [chain.layers[1].clone()]);
    fs::set_permissions(&chain.layers[1], fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn very_many_unreadable_paths_are_counted() {
    if !is_root() {
        return skip(
            "very_many_unreadable_paths_are_counted",
            "root, to become another user",
        );
    }
    let chain = Chain::new(1);
    for at in 0..120 {
        let name = format!("d{at:03}");
        chain.dir(0, &name);
        fs::set_permissions(chain.path(0, &name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    match as_nobody(|| chain.merge().map(|merged| merged.show())) {
        Err(Error::Unreadable { paths, more }) => {
            assert_eq!((paths.len(), more), (50, 70));
            assert_eq!(paths[49].path, chain.path(0, "d049"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stop_ends_it() {
    let chain = Chain::new(1);
    chain.file(0, "a/b", "");
    let control = Control::default();
    control.stop();
    let result = merge(&chain.layers, chain.options, 2, &control, |_| {});
    assert!(matches!(result, Err(Error::Interrupted)));
}

#[test]
fn layers_that_change_meanwhile_are_an_error_and_never_a_panic() {
    let chain = Chain::new(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (one, other) = (chain.path(0, "a"), chain.path(0, "b"));
                fs::create_dir_all(one.join("x/y/z")).unwrap();
                fs::write(one.join("x/f"), "1").unwrap();
                fs::rename(&one, &other).unwrap();
                fs::remove_dir_all(other.join("x")).unwrap();
                rustix::fs::symlinkat("/etc", CWD, other.join("x")).unwrap();
                fs::remove_dir_all(&other).unwrap();
            }
        });
        let mut changed = 0;
        for _ in 0..400 {
            match chain.merge() {
                Ok(_) => {}
                Err(Error::LayerChanged { .. }) => changed += 1,
                Err(other) => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{other}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(changed > 0, "the test changes too little to prove anything");
    });
}
