//! Redirects and metacopy, true and hostile.

use super::support::{is_root, lines, skip, Chain};
use crate::layers::MergeOptions;

/// Redirects are followed for trusted marks only.
fn trusted(test: &str, layers: usize) -> Option<Chain> {
    if !is_root() {
        skip(test, "root, to set trusted.overlay attributes");
        return None;
    }
    Some(Chain::new(layers))
}

#[test]
fn a_relative_redirect_renames_in_the_layers_below() {
    let Some(chain) = trusted("a_relative_redirect_renames_in_the_layers_below", 3) else {
        return;
    };
    chain
        .file(0, "p/old/bottom", "")
        .file(0, "p/new/hidden", "");
    chain.file(1, "p/old/middle", "");
    chain.file(2, "p/new/top", "").whiteout(2, "p/old");
    chain.mark(2, "p/new", "redirect", b"old");
    let merged = chain.merge().unwrap();
    let expected = lines(&[
        "p/",
        "p/new/",
        "p/new/bottom=",
        "p/new/middle=",
        "p/new/top=",
    ]);
    assert_eq!(merged.show(), expected);
    assert!(merged.xattrs("p/new").is_empty());
}

#[test]
fn an_absolute_redirect_is_looked_up_in_every_layer_below() {
    let Some(chain) = trusted("an_absolute_redirect_is_looked_up_in_every_layer_below", 3) else {
        return;
    };
    // Only the middle layer has the parent "q"; the bottom one has the target.
    chain
        .file(0, "a/b/bottom", "")
        .dir(1, "q")
        .file(2, "q/new/top", "");
    chain.mark(2, "q/new", "redirect", b"/a/b");
    let expected = lines(&[
        "a/",
        "a/b/",
        "a/b/bottom=",
        "q/",
        "q/new/",
        "q/new/bottom=",
        "q/new/top=",
    ]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn redirects_chain() {
    let Some(chain) = trusted("redirects_chain", 4) else {
        return;
    };
    chain
        .file(0, "one/0", "")
        .file(1, "two/1", "")
        .file(2, "three/2", "")
        .file(3, "four/3", "");
    chain
        .mark(1, "two", "redirect", b"one")
        .mark(2, "three", "redirect", b"/two");
    chain.mark(3, "four", "redirect", b"three");
    chain
        .whiteout(1, "one")
        .whiteout(2, "two")
        .whiteout(3, "three");
    let expected = lines(&["four/", "four/0=", "four/1=", "four/2=", "four/3="]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn a_relative_redirect_goes_on_beside_an_absolute_one() {
    let Some(chain) = trusted("a_relative_redirect_goes_on_beside_an_absolute_one", 4) else {
        return;
    };
    // top -> /a/two, whose own redirect "one" means /a/one, and not "one" in
    // the directory that holds "top".
    chain
        .file(0, "a/one/right", "")
        .file(0, "p/one/wrong", "")
        .file(0, "one/wrong", "");
    chain.dir(1, "p").dir(2, "a/two").file(3, "p/top/x", "");
    chain
        .mark(2, "a/two", "redirect", b"one")
        .mark(3, "p/top", "redirect", b"/a/two");
    let merged = chain.merge().unwrap();
    assert_eq!(
        merged
            .tree
            .directory(merged.at("p/top"))
            .unwrap()
            .entries
            .len(),
        2
    );
    merged.at("p/top/right");
}

#[test]
fn an_absolute_redirect_leads_out_from_under_an_opaque_directory() {
    let test = "an_absolute_redirect_leads_out_from_under_an_opaque_directory";
    let Some(chain) = trusted(test, 3) else {
        return;
    };
    chain.file(0, "real/x", "").dir(1, "o/d").dir(2, "top");
    chain
        .mark(1, "o", "opaque", b"y")
        .mark(1, "o/d", "redirect", b"/real");
    chain.mark(2, "top", "redirect", b"/o/d");
    chain.merge().unwrap().at("top/x");
}

#[test]
fn an_opaque_directory_that_a_redirect_leads_to_ends_it() {
    let Some(chain) = trusted("an_opaque_directory_that_a_redirect_leads_to_ends_it", 3) else {
        return;
    };
    chain.file(0, "real/x", "").file(1, "d/y", "").dir(2, "top");
    chain
        .mark(1, "d", "opaque", b"y")
        .mark(1, "d", "redirect", b"real");
    chain.mark(2, "top", "redirect", b"d");
    let expected = lines(&["d/", "d/y=", "real/", "real/x=", "top/", "top/y="]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn whiteouts_by_prefix_are_found_by_redirects() {
    let test = "whiteouts_by_prefix_are_found_by_redirects";
    if !is_root() {
        return skip(test, "root, to set trusted.overlay attributes");
    }
    let options = MergeOptions {
        fuse_overlayfs: true,
        ..MergeOptions::default()
    };
    let chain = Chain::with(3, options);
    chain
        .file(0, "zz/hidden", "")
        .file(1, ".wh.zz", "")
        .dir(2, "top");
    for name in ["a", "b", "c", "d", "m"] {
        chain.file(1, name, "");
    }
    chain.mark(2, "top", "redirect", b"zz");
    let expected = lines(&["a=", "b=", "c=", "d=", "m=", "top/"]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn an_absolute_path_stops_at_whiteouts_files_and_opaque_directories() {
    let Some(chain) = trusted(
        "an_absolute_path_stops_at_whiteouts_files_and_opaque_directories",
        3,
    ) else {
        return;
    };
    for (name, middle) in [("w", 0), ("f", 1), ("o", 2), ("m", 3)] {
        chain.file(0, &format!("{name}/t/0"), "");
        match middle {
            0 => chain.whiteout(1, name),
            1 => chain.file(1, name, ""),
            2 => chain
                .file(1, &format!("{name}/t/1"), "")
                .mark(1, name, "opaque", b"y"),
            _ => chain.file(1, &format!("{name}/t/1"), ""),
        };
        chain.dir(2, &format!("to_{name}")).whiteout(2, name);
        chain.mark(
            2,
            &format!("to_{name}"),
            "redirect",
            format!("/{name}/t").as_bytes(),
        );
    }
    let expected = lines(&[
        "to_f/", "to_m/", "to_m/0=", "to_m/1=", "to_o/", "to_o/1=", "to_w/",
    ]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn where_a_redirect_finds_nothing_the_merge_just_stops() {
    let Some(chain) = trusted("where_a_redirect_finds_nothing_the_merge_just_stops", 2) else {
        return;
    };
    chain
        .file(0, "file", "")
        .file(0, "d/hidden", "")
        .file(0, "e/hidden", "");
    chain
        .file(1, "d/x", "")
        .mark(1, "d", "redirect", b"/no/where");
    chain.file(1, "e/x", "").mark(1, "e", "redirect", b"file");
    chain
        .file(1, "f/x", "")
        .mark(1, "f", "redirect", &[b'n'; 300]);
    let expected = lines(&["d/", "d/x=", "e/", "e/x=", "f/", "f/x=", "file="]);
    assert_eq!(chain.show(), expected);
}

#[test]
fn opaque_wins_over_redirect() {
    let Some(chain) = trusted("opaque_wins_over_redirect", 2) else {
        return;
    };
    chain
        .file(0, "old/x", "")
        .file(1, "new/y", "")
        .whiteout(1, "old");
    chain
        .mark(1, "new", "redirect", b"a/b")
        .mark(1, "new", "opaque", b"y");
    assert_eq!(chain.show(), lines(&["new/", "new/y="]));
}

#[test]
fn hostile_redirects_are_errors_that_name_the_path() {
    for value in [
        &b"a/b"[..],
        b"",
        b"//",
        b"/",
        b"/a/",
        b"..",
        b".",
        b"/a/../b",
        b"\0",
    ] {
        let test = "hostile_redirects_are_errors_that_name_the_path";
        let Some(chain) = trusted(test, 2) else {
            return;
        };
        chain.dir(0, "a/b").dir(0, "p").dir(1, "p/evil");
        chain.mark(1, "p/evil", "redirect", value);
        let text = chain.error();
        assert!(
            text.contains("layer1/p/evil") && text.contains("redirect"),
            "{value:?}: {text}"
        );
    }
}

#[test]
fn a_bad_redirect_in_the_bottom_layer_is_not_even_read() {
    let Some(chain) = trusted("a_bad_redirect_in_the_bottom_layer_is_not_even_read", 2) else {
        return;
    };
    chain
        .file(0, "d/x", "")
        .mark(0, "d", "redirect", b"a/b")
        .file(1, "d/y", "");
    assert_eq!(chain.show(), lines(&["d/", "d/x=", "d/y="]));
}

#[test]
fn redirects_cannot_multiply_the_tree_without_end() {
    let Some(chain) = trusted("redirects_cannot_multiply_the_tree_without_end", 40) else {
        return;
    };
    // Two redirects a layer, each to the same directory below: 2^39 directories.
    for layer in 0..40 {
        for name in ["x/a", "x/b"] {
            chain.dir(layer, name);
            if layer > 0 {
                chain
                    .mark(layer, name, "redirect", b"/x")
                    .mark(layer, "x", "opaque", b"y");
            }
        }
    }
    let text = chain.error();
    assert!(text.contains("redirects"), "{text}");
}

#[test]
fn a_directory_shown_twice_is_placed_twice() {
    let Some(chain) = trusted("a_directory_shown_twice_is_placed_twice", 2) else {
        return;
    };
    chain.file(0, "t/x", "1").dir(1, "a").dir(1, "b");
    chain
        .mark(1, "a", "redirect", b"t")
        .mark(1, "b", "redirect", b"t");
    let merged = chain.merge().unwrap();
    assert_eq!(
        merged.show(),
        lines(&["a/", "a/x=1", "b/", "b/x=1", "t/", "t/x=1"])
    );
    assert_eq!(
        merged.tree.node(merged.at("a/x")).links,
        3,
        "one real inode"
    );
    super::slots::check(&merged);
}

#[test]
fn userxattr_refuses_redirects_as_the_kernel_does() {
    let options = MergeOptions {
        userxattr: true,
        ..MergeOptions::default()
    };
    let chain = Chain::with(3, options);
    chain
        .dir(0, "d")
        .dir(1, "d")
        .dir(2, "d")
        .mark(1, "d", "redirect", b"x");
    let text = chain.error();
    assert!(
        text.contains("layer1/d") && text.contains("EPERM"),
        "{text}"
    );
    // In the last of the parent's layers it is not looked at.
    let chain = Chain::with(3, options);
    chain
        .file(1, "p/d/x", "")
        .file(2, "p/y", "")
        .mark(1, "p/d", "redirect", b"x");
    assert_eq!(chain.show(), lines(&["p/", "p/d/", "p/d/x=", "p/y="]));
}

#[test]
fn metacopy_takes_the_data_from_below() {
    let Some(chain) = trusted("metacopy_takes_the_data_from_below", 4) else {
        return;
    };
    chain
        .file(0, "f", "data")
        .xattr(0, "f", "trusted.lower", b"1");
    chain.file(1, "f", "\0\0\0\0").mark(1, "f", "metacopy", b"");
    chain
        .file(3, "f", "\0\0\0\0")
        .mark(3, "f", "metacopy", &[0, 4, 0, 0]);
    chain.xattr(3, "f", "trusted.upper", b"2");
    chain
        .file(0, "old", "moved")
        .file(2, "new", "\0\0\0\0\0")
        .mark(2, "new", "metacopy", b"");
    chain.mark(2, "new", "redirect", b"old").whiteout(2, "old");
    chain
        .file(1, "a/b", "abs")
        .file(2, "c", "\0\0\0")
        .mark(2, "c", "metacopy", b"");
    chain.mark(2, "c", "redirect", b"/a/b");
    let merged = chain.merge().unwrap();
    assert_eq!(
        merged.show(),
        lines(&["a/", "a/b=abs", "c=abs", "f=data", "new=moved"])
    );
    assert_eq!(merged.xattrs("f"), ["trusted.upper=2"]);
    super::slots::check(&merged);
}

#[test]
fn metacopy_without_its_data_is_corrupt() {
    type Prepare = fn(&Chain);
    let prepare: [(&str, Prepare); 7] = [
        ("no layer below", |_| {}),
        ("no layer below", |chain| {
            chain.dir(0, "f");
        }),
        ("no layer below", |chain| {
            chain.whiteout(0, "f");
        }),
        ("no layer below", |chain| {
            chain.symlink(0, "f", "g").file(0, "g", "1234");
        }),
        ("no layer below", |chain| {
            chain.file(0, "f", "1234").mark(0, "f", "metacopy", b"");
        }),
        ("5 bytes", |chain| {
            chain.file(0, "f", "12345");
        }),
        ("valid form", |chain| {
            chain
                .file(0, "f", "1234")
                .mark(1, "f", "metacopy", &[0, 9, 0]);
        }),
    ];
    for (at, (reason, prepare)) in prepare.iter().enumerate() {
        let Some(chain) = trusted("metacopy_without_its_data_is_corrupt", 2) else {
            return;
        };
        chain.file(1, "f", "\0\0\0\0").mark(1, "f", "metacopy", b"");
        prepare(&chain);
        let text = chain.error();
        assert!(
            text.contains("layer1/f") && text.contains(reason),
            "{at}: {text}"
        );
    }
}

#[test]
fn metacopy_under_userxattr_is_followed_by_its_own_name() {
    let options = MergeOptions {
        userxattr: true,
        ..MergeOptions::default()
    };
    let chain = Chain::with(2, options);
    chain
        .file(0, "f", "data")
        .file(1, "f", "\0\0\0\0")
        .mark(1, "f", "metacopy", b"");
    assert_eq!(chain.show(), lines(&["f=data"]));
    chain.mark(1, "f", "redirect", b"g");
    assert!(chain.error().contains("EPERM"));
}
