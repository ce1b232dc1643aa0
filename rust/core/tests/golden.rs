//! The bytes of images, held: the same input must give the same bytes in every
//! version of one [`FORMAT_EPOCH`], because caches name images by their input
//! and the epoch.
#![allow(missing_docs)]

mod common;

use common::trees::{many, varied, varied_for};
use common::{InMemory, Maker};
use layermelt_core::blockio::ContentStore;
use layermelt_core::digest::FORMAT_EPOCH;
use layermelt_core::ext4::plan::{ImageOptions, JournalSize, Plan, Profile, Size};
use layermelt_core::ext4::write::fill_region;
use layermelt_core::tree::{Kind, Tree};

/// The epoch that [`GOLDEN`] belongs to.
const EPOCH: u32 = 1;

/// Digest of all that is told of each image. When one of these changes, the
/// bytes of images have changed: raise `FORMAT_EPOCH` (and [`EPOCH`]) by one and
/// put the new digests here, once for all changes of a release.
const GOLDEN: &[(&str, &str)] = &[
    ("empty, default", "2d1a47fa58f2945e487f16ba22c1b86c"),
    ("empty, min", "e76787ebaf7c8e90ad357fd3b3b78c21"),
    ("empty, fixed", "36aee5f2c26120cbb271b0c5e9a39a05"),
    ("empty, compat", "5c12811e621a828a73e68e684fd8a249"),
    ("empty, readonly", "d795772fb843fb667d43c4498fcf462a"),
    ("empty, wishes", "41029c69d047f9c5d1c6323344b1e1d9"),
    ("empty, 1024", "dc49c99268f369c65b8297d15dec6d8f"),
    ("empty, 1024 min", "79d13caef44714f412e0a0088f2faf67"),
    ("empty, 2048", "fd64872b7e2a2d45271ca7e79c84991c"),
    ("empty, 2048 readonly", "092ea7ca30a4e48a175d79da8b117f0f"),
    ("varied, default", "819d71403bfe8b92b33de1fde7a900e5"),
    ("varied, min", "24f4ce86dbd2273b8ca5bb9d4074684e"),
    ("varied, fixed", "af5d91ba741c737393289752070b4254"),
    ("varied, compat", "2bd7d500ec1b08caeba8b98908fb2529"),
    ("varied, readonly", "b45db2c5cfa8b5c7e70c041391a96c84"),
    ("varied, wishes", "c625481416480c0be35ffa56d5d7e2bb"),
    ("varied, 1024", "c77caa53f8f0a67e95415fcfcd220ecd"),
    ("varied, 1024 min", "62dd00cd3fd0567f04c069303cd850fb"),
    ("varied, 2048", "9c1c684f4c720bd74c6d71721f341db4"),
    ("varied, 2048 readonly", "adffc5dc924552b6ade125f41fb7415d"),
    ("many, default", "1c9ef64285aabbd9f8bf215c79cf89e0"),
    ("many, min", "098aa8bc99802ddbb17322509a84da51"),
    ("many, fixed", "a0866e7e5847e9d5b731b6aa8af13e4d"),
    ("many, compat", "8826dbbe70181c910379621014b64f56"),
    ("many, readonly", "fac4093ed348bdd7818d3b0ca850b859"),
    ("many, wishes", "f785196e5e2224d982ea4695c546275c"),
    ("many, 1024", "edbc7ac34ff74b1560c7f058c5686e79"),
    ("many, 1024 min", "72af1cd75d5087a60a1b8f836db22493"),
    ("many, 2048", "99262a1f4f5565badcf5f55300971129"),
    ("many, 2048 readonly", "8df5b4c7c6d899e059497df42fc7ac48"),
    ("wide, default", "42fcd80c77cb29ea6ce82324371f2f89"),
    ("wide, min", "958d221007806999c8a17854a1d0ef90"),
    ("wide, fixed", "4f3de2f72974ba7397bd2d57f45447f3"),
    ("wide, compat", "b7da41a160f98b865a0ef805df2da3a0"),
    ("wide, readonly", "dc68b227dab6f3605a8c290ae9081e87"),
    ("wide, wishes", "00bc35f24fd96fe4d6db4f16251ddb98"),
    ("wide, 1024", "d154406fc4a17bea06614899f84e70c6"),
    ("wide, 1024 min", "65567fb4065b8df676b4b927a485ada5"),
    ("wide, 2048", "91cddb584b3887cb906781dd65625397"),
    ("wide, 2048 readonly", "6b2f74a0bdbbf5cd19b93175f0b5ebe9"),
    ("attributes, default", "6dcfbadf61860ace2abb0c39521dd8c0"),
    ("attributes, min", "8cfd540256ba0c31a303f64b307e6044"),
    ("attributes, fixed", "985186b0f89af3e9bd3c6d4f4db8ede3"),
    ("attributes, compat", "10ce85cda2c5418554ff96307f6e75d6"),
    ("attributes, readonly", "cb67cc2b881e50f5b78a662339df0640"),
    ("attributes, wishes", "5e9542f47f5198c4f3a88d3a489a0505"),
    ("attributes, 1024", "c5fe94c70c358177a23d6f5460325981"),
    ("attributes, 1024 min", "2fa001213261101563850483bf3a7009"),
    ("attributes, 2048", "efb4eb1e547bc49786573b19a364792a"),
    (
        "attributes, 2048 readonly",
        "e21e3ff386fe0f1cdda759bcfcc83146",
    ),
];

/// Names with equal prefixes, several index levels, many subdirectories.
fn wide() -> Tree {
    let mut make = Maker::default();
    let names: Vec<_> = (0..60_000)
        .map(|n| format!("{n:060}").into_bytes())
        .collect();
    let node = make.node(Kind::Fifo);
    let entries: Vec<_> = names.iter().map(|n| (n.as_slice(), node)).collect();
    let names_only = make.directory(&entries);
    let entries: Vec<_> = names[..300]
        .iter()
        .map(|n| (n.as_slice(), make.directory(&[])))
        .collect();
    let directories = make.directory(&entries);
    make.finish(&[(b"names", names_only), (b"directories", directories)])
}

/// Shared and own values of attributes, in blocks and in inodes of their own.
fn attributes() -> Tree {
    let mut make = Maker::default();
    let shared = vec![5; 65_536];
    let names: Vec<_> = (0..60).map(|n| format!("f{n}").into_bytes()).collect();
    let nodes: Vec<_> = (0..60u8).map(|n| make.file(vec![n; 100])).collect();
    for (n, &node) in (0u8..).zip(&nodes) {
        let own = vec![n; 4_000];
        match n % 4 {
            0 => make.xattrs(node, &[(b"user.shared", &shared), (b"user.own", &own)]),
            1 => make.xattrs(node, &[(b"user.a", b"1"), (b"trusted.b", &[n % 3; 300])]),
            2 => make.xattrs(node, &[(b"security.capability", &[1; 20])]),
            _ => {}
        }
    }
    let entries: Vec<_> = names.iter().map(Vec::as_slice).zip(nodes).collect();
    make.finish(&entries)
}

/// Digest of the image's size and of each region's place and bytes: all of the
/// image, for what no region tells is zeros.
fn digest(tree: &Tree, options: &ImageOptions) -> String {
    let plan = Plan::new(tree, options).unwrap();
    let mut opener = InMemory.opener(tree);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&plan.image_bytes().to_le_bytes());
    let mut bytes = Vec::new();
    for region in plan.regions() {
        bytes.resize(usize::try_from(region.bytes()).unwrap(), 0);
        fill_region(&plan, &mut *opener, &region, &mut bytes).unwrap();
        hasher.update(&region.offset().to_le_bytes());
        hasher.update(&region.bytes().to_le_bytes());
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[test]
fn the_bytes_of_images_are_those_of_their_epoch() {
    let base = ImageOptions::default;
    let trees = [
        ("empty", Maker::default().finish(&[])),
        ("varied", varied()),
        ("many", many(3_000, 5_000)),
        ("wide", wide()),
        ("attributes", attributes()),
    ];
    let options = [
        ("default", base()),
        (
            "min",
            ImageOptions {
                size: Size::Min,
                ..base()
            },
        ),
        (
            "fixed",
            ImageOptions {
                size: Size::Bytes((5 << 30) + 12_288),
                label: b"golden".to_vec(),
                timestamp: Some(1_700_000_000),
                uuid: Some([7; 16]),
                ..base()
            },
        ),
        (
            "compat",
            ImageOptions {
                profile: Profile::Compat,
                inodes: Some(100_000),
                ..base()
            },
        ),
        (
            "readonly",
            ImageOptions {
                profile: Profile::Readonly,
                ..base()
            },
        ),
        (
            "wishes",
            ImageOptions {
                journal: JournalSize::Bytes(16 << 20),
                reserved: 10 << 20,
                free_space: 1 << 30,
                ..base()
            },
        ),
        (
            "1024",
            ImageOptions {
                block_size: 1024,
                ..base()
            },
        ),
        (
            "1024 min",
            ImageOptions {
                block_size: 1024,
                size: Size::Min,
                profile: Profile::Compat,
                ..base()
            },
        ),
        (
            "2048",
            ImageOptions {
                block_size: 2048,
                ..base()
            },
        ),
        (
            "2048 readonly",
            ImageOptions {
                block_size: 2048,
                profile: Profile::Readonly,
                ..base()
            },
        ),
    ];
    let mut found = Vec::new();
    for (tree_name, tree) in &trees {
        for (options_name, options) in &options {
            // Its longest symlink fills a block.
            let small = (*tree_name == "varied").then(|| varied_for(options.block_size));
            found.push((
                format!("{tree_name}, {options_name}"),
                digest(small.as_ref().unwrap_or(tree), options),
            ));
        }
    }
    let same = found.len() == GOLDEN.len()
        && found
            .iter()
            .zip(GOLDEN)
            .all(|(found, held)| (found.0.as_str(), found.1.as_str()) == *held);
    let told: String = found
        .iter()
        .map(|(name, digest)| format!("    ({name:?}, {digest:?}),\n"))
        .collect();
    assert!(
        same && FORMAT_EPOCH == EPOCH,
        "images have other bytes than those of epoch {EPOCH}; see GOLDEN. Now:\n{told}"
    );
}
