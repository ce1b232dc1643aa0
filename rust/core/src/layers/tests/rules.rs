//! The rules of lookup: whiteouts, opaque directories, type clashes, hard
//! links, metadata, names.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::FileType;

use super::support::{is_root, lines, set_mtime, skip, Chain};
use crate::layers::MergeOptions;
use crate::tree::{Kind, Timestamp};

#[test]
fn upper_files_win_and_directories_merge() {
    let chain = Chain::new(3);
    chain
        .file(0, "d/a", "0")
        .file(0, "d/b", "0")
        .file(0, "only", "0");
    chain.file(1, "d/b", "1").file(1, "d/c", "1");
    chain.file(2, "d/c", "2");
    let expected = lines(&["d/", "d/a=0", "d/b=1", "d/c=2", "only=0"]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn a_whiteout_hides_whatever_its_mode() {
    let chain = Chain::new(2);
    chain.file(0, "a", "").file(0, "b/x", "").file(0, "c", "");
    chain.whiteout(1, "a").whiteout(1, "b");
    chain.node(1, "c", FileType::CharacterDevice, 0o644, 0, 0);
    assert!(chain.show().is_empty());
}

#[test]
fn a_whiteout_with_nothing_below_is_absent() {
    let chain = Chain::new(1);
    chain
        .whiteout(0, "phantom")
        .file(0, "d/x", "")
        .whiteout(0, "d/y");
    assert_eq!(chain.show(), lines(&["d/", "d/x="]));
}

#[test]
fn only_char_0_0_is_a_whiteout() {
    if !is_root() {
        return skip("only_char_0_0_is_a_whiteout", "root, to make device nodes");
    }
    let chain = Chain::new(2);
    for name in ["b00", "c01", "c10", "big"] {
        chain.file(0, name, "below");
    }
    chain.node(1, "b00", FileType::BlockDevice, 0o600, 0, 0);
    chain.node(1, "c01", FileType::CharacterDevice, 0o600, 0, 1);
    chain.node(1, "c10", FileType::CharacterDevice, 0o600, 1, 0);
    chain.node(1, "big", FileType::BlockDevice, 0o600, 4095, 1_048_575);
    let expected = lines(&["b00 b0:0", "c01 c0:1", "c10 c1:0", "big b4095:1048575"]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn a_whiteout_cuts_a_directory_without_any_opaque_mark() {
    let chain = Chain::new(3);
    chain
        .file(0, "d/below", "")
        .whiteout(1, "d")
        .file(2, "d/above", "");
    assert_eq!(chain.show(), lines(&["d/", "d/above="]));
}

#[test]
fn an_xattr_whiteout_is_an_empty_file_with_the_mark() {
    let chain = Chain::new(2);
    chain
        .file(0, "gone", "0")
        .file(0, "stays", "0")
        .file(0, "bottom", "");
    chain.mark(0, "bottom", "whiteout", b"");
    chain
        .file(1, "gone", "")
        .mark(1, "gone", "whiteout", b"any value");
    chain
        .file(1, "stays", "full")
        .mark(1, "stays", "whiteout", b"y");
    chain
        .file(1, "o/x", "")
        .mark(1, "o/x", "whiteout", b"y")
        .mark(1, "o", "opaque", b"y");
    let merged = chain.merge().unwrap();
    assert_eq!(merged.show(), lines(&["o/", "stays=full"]));
    assert!(merged.xattrs("stays").is_empty(), "the mark is hidden");
}

#[test]
fn only_the_value_y_is_opaque() {
    for value in [&b"n"[..], b"Y", b"yy", b"", b"y\0", b"1", b"x"] {
        let chain = Chain::new(2);
        chain.file(0, "d/below", "").file(1, "d/above", "");
        chain.mark(1, "d", "opaque", value);
        let expected = lines(&["d/", "d/above=", "d/below="]);
        assert_eq!(chain.show(), expected, "{value:?}");
        assert!(chain.merge().unwrap().xattrs("d").is_empty());
    }
    let chain = Chain::new(3);
    chain
        .file(0, "d/bottom", "")
        .file(1, "d/middle", "")
        .file(2, "d/top", "");
    chain.mark(1, "d", "opaque", b"y");
    assert_eq!(chain.show(), lines(&["d/", "d/middle=", "d/top="]));
}

#[test]
fn opaque_on_a_layers_root_is_ignored_with_a_warning() {
    let chain = Chain::new(2);
    chain
        .file(0, "below", "")
        .file(1, "above", "")
        .mark(1, "", "opaque", b"y");
    let merged = chain.merge().unwrap();
    assert_eq!(merged.show(), lines(&["above=", "below="]));
    assert_eq!(merged.warnings.len(), 1, "{:?}", merged.warnings);
    let text = &merged.warnings[0];
    assert!(text.contains("layer1") && text.contains("opaque"), "{text}");
    assert!(merged.xattrs("").is_empty());
}

#[test]
fn types_clash() {
    let chain = Chain::new(3);
    chain
        .file(0, "file_over_dir/x", "")
        .file(1, "file_over_dir", "f");
    chain
        .file(0, "dir_over_file", "f")
        .file(1, "dir_over_file/x", "");
    chain
        .file(0, "dir_file_dir/0", "")
        .file(1, "dir_file_dir", "")
        .file(2, "dir_file_dir/2", "");
    chain
        .symlink(0, "link", "target")
        .dir(0, "target")
        .file(1, "link/x", "");
    chain
        .symlink(1, "target2", "dir_over_file")
        .dir(0, "target2/y");
    let expected = lines(&[
        "dir_file_dir/",
        "dir_file_dir/2=",
        "dir_over_file/",
        "dir_over_file/x=",
        "file_over_dir=f",
        "link/",
        "link/x=",
        "target/",
        "target2 -> dir_over_file",
    ]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn metadata_and_attributes_are_the_topmost_ones() {
    let chain = Chain::new(2);
    chain.file(0, "d/x", "").file(1, "d/y", "");
    if is_root() {
        chain
            .xattr(0, "d", "trusted.lower", b"1")
            .xattr(1, "d", "trusted.upper", b"2");
    } else {
        chain
            .xattr(0, "d", "user.lower", b"1")
            .xattr(1, "d", "user.upper", b"2");
    }
    let top = chain.path(1, "d");
    fs::set_permissions(&top, fs::Permissions::from_mode(0o3711)).unwrap();
    set_mtime(&top, -5, 7);
    set_mtime(&chain.path(0, "d"), 99, 0);
    set_mtime(&chain.layers[1], 5_000_000_000, 999_999_999);
    let merged = chain.merge().unwrap();
    let metadata = merged.tree.node(merged.at("d")).metadata;
    assert_eq!(metadata.permissions, 0o3711);
    let expected = Timestamp {
        seconds: -5,
        nanoseconds: 7,
    };
    assert_eq!(metadata.mtime, expected);
    assert_eq!(merged.xattrs("d").len(), 1, "{:?}", merged.xattrs("d"));
    assert!(merged.xattrs("d")[0].ends_with("upper=2"));
    let root = merged.tree.node(merged.tree.root()).metadata;
    assert_eq!(
        (root.mtime.seconds, root.mtime.nanoseconds),
        (5_000_000_000, 999_999_999)
    );
}

#[test]
fn hard_links_count_visible_names_only() {
    let chain = Chain::new(2);
    chain
        .file(0, "a", "same")
        .hard_link((0, "a"), (0, "d/b"))
        .hard_link((0, "a"), (0, "gone"));
    chain.hard_link((0, "a"), (0, "replaced"));
    chain.whiteout(1, "gone").file(1, "replaced", "new");
    let merged = chain.merge().unwrap();
    assert_eq!(merged.at("a"), merged.at("d/b"));
    assert_eq!(merged.tree.node(merged.at("a")).links, 2);
    assert_eq!(merged.tree.node(merged.at("replaced")).links, 1);
    assert_ne!(merged.at("a"), merged.at("replaced"));
    assert_eq!(merged.tree.counts().hard_links, 1);
}

#[test]
fn hard_links_of_all_types_and_across_layers() {
    let chain = Chain::new(2);
    chain.file(0, "f", "x").hard_link((0, "f"), (1, "g"));
    chain.symlink(0, "l", "t").hard_link((0, "l"), (0, "l2"));
    chain
        .node(0, "p", FileType::Fifo, 0o600, 0, 0)
        .hard_link((0, "p"), (1, "p2"));
    let merged = chain.merge().unwrap();
    for (one, other) in [("f", "g"), ("l", "l2"), ("p", "p2")] {
        assert_eq!(merged.at(one), merged.at(other));
        assert_eq!(merged.tree.node(merged.at(one)).links, 2);
    }
}

#[test]
fn all_types_and_any_names() {
    use std::os::unix::ffi::OsStrExt;

    let chain = Chain::new(2);
    chain.node(0, "fifo", FileType::Fifo, 0o600, 0, 0);
    chain.node(0, "socket", FileType::Socket, 0o600, 0, 0);
    let target = "t".repeat(1000);
    chain
        .symlink(0, "link", &target)
        .symlink(0, "absolute", "/etc/passwd");
    let name: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    let path = chain.layers[1].join(std::ffi::OsStr::from_bytes(&name));
    fs::write(&path, "bytes").unwrap();
    fs::write(chain.layers[0].join(path.file_name().unwrap()), "hidden").unwrap();
    let merged = chain.merge().unwrap();
    let node = merged
        .tree
        .lookup(merged.tree.root(), &name)
        .expect("the name");
    assert!(matches!(
        merged.tree.node(node).kind,
        Kind::File { size: 5, .. }
    ));
    let shown = merged.show();
    for line in [
        "fifo p",
        "socket s",
        "absolute -> /etc/passwd",
        &format!("link -> {target}"),
    ] {
        assert!(shown.iter().any(|shown| shown == line), "{line}");
    }
}

#[test]
fn the_other_namespace_is_ordinary() {
    if !is_root() {
        return skip(
            "the_other_namespace_is_ordinary",
            "root, to set trusted attributes",
        );
    }
    for userxattr in [false, true] {
        let options = MergeOptions {
            userxattr,
            ..MergeOptions::default()
        };
        let chain = Chain::with(2, options);
        let other = if userxattr {
            "trusted.overlay"
        } else {
            "user.overlay"
        };
        chain.file(0, "d/below", "").file(1, "d/above", "");
        chain.xattr(1, "d", &format!("{other}.opaque"), b"y");
        chain.xattr(1, "d", &format!("{other}.redirect"), b"..");
        chain
            .mark(1, "d", "origin", b"x")
            .mark(1, "d", "unknown", b"x");
        chain
            .mark(1, "d", "overlay.opaque", b"y")
            .mark(1, "d", "overlay.overlay.x", b"z");
        let merged = chain.merge().unwrap();
        assert_eq!(merged.show(), lines(&["d/", "d/above=", "d/below="]));
        let own = if userxattr {
            "user.overlay"
        } else {
            "trusted.overlay"
        };
        let expected = lines(&[
            &format!("{other}.opaque=y"),
            &format!("{other}.redirect=.."),
            &format!("{own}.opaque=y"),
            &format!("{own}.overlay.x=z"),
        ]);
        assert_eq!(merged.xattrs("d"), expected);
    }
}

#[test]
fn names_with_wh_are_ordinary_in_native_stores() {
    let chain = Chain::new(2);
    chain
        .file(0, "d/a", "0")
        .file(1, "d/.wh.a", "")
        .file(1, "d/.wh..wh..opq", "");
    let expected = lines(&["d/", "d/.wh..wh..opq=", "d/.wh.a=", "d/a=0"]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn fuse_overlayfs_hides_by_names() {
    let options = MergeOptions {
        fuse_overlayfs: true,
        ..MergeOptions::default()
    };
    let chain = Chain::with(2, options);
    chain
        .file(0, "d/a", "0")
        .file(0, "d/b", "0")
        .file(0, "d/zz", "0")
        .file(0, "d/~", "0");
    chain
        .file(1, "d/.wh.a", "")
        .file(1, "d/.wh.b", "")
        .file(1, "d/b", "1");
    chain
        .dir(1, "d/-sub")
        .whiteout(1, "d/zz")
        .file(1, "d/.wh.~", "");
    chain
        .file(0, "o/below", "")
        .file(1, "o/above", "")
        .file(1, "o/.wh..wh..opq", "");
    chain.file(0, "u/below", "").file(1, "u/above", "");
    chain.xattr(1, "u", "user.fuseoverlayfs.opaque", b"y");
    chain.file(0, "v/below", "").file(1, "v/above", "");
    chain.xattr(1, "v", "user.overlay.opaque", b"y");
    chain
        .xattr(1, "v", "user.fuseoverlayfs.origin", b"y")
        .xattr(1, "v", "user.kept", b"1");
    let merged = chain.merge().unwrap();
    let expected = lines(&[
        "d/", "d/-sub/", "d/b=1", "o/", "o/above=", "u/", "u/above=", "v/", "v/above=",
    ]);
    assert_eq!(merged.show(), expected);
    assert_eq!(merged.xattrs("v"), ["user.kept=1"]);
    assert!(merged.xattrs("u").is_empty());
}

#[test]
fn many_layers() {
    let chain = Chain::new(128);
    for layer in 0..128 {
        chain.file(layer, "d/all", &layer.to_string());
        chain.file(layer, &format!("d/only{layer}"), "");
        if layer > 0 {
            chain.whiteout(layer, &format!("d/only{}", layer - 1));
        }
    }
    assert_eq!(chain.show(), lines(&["d/", "d/all=127", "d/only127="]));
}
