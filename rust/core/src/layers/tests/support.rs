//! Makes chains in temporary directories, and shows what they merge to.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FileType, Mode, XattrFlags, CWD};

use crate::blockio::{ContentStore, Opened, Opener};
use crate::control::Control;
use crate::error::Result;
use crate::layers::xattrs::Way;
use crate::layers::{merge_in_way, LayerFiles, MergeOptions};
use crate::tree::{Kind, NodeId, Slot, Tree};

/// A directory of its own for a test, removed at its end.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("layermelt-test-{}-{number}", std::process::id());
        let path = place().join(name);
        fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }
}

/// Where tests make their trees: in memory where that takes attributes (user
/// ones since Linux 6.6), for a disk may take its time to make 100,000 names.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let probe = memory.join(format!(
        "layermelt-probe-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let takes = fs::write(&probe, "").is_ok()
        && rustix::fs::setxattr(&probe, "user.probe", b"", XattrFlags::empty()).is_ok();
    // OK to ignore: another test may have removed it.
    let _ = fs::remove_file(&probe);
    if takes && std::env::var_os("TMPDIR").is_none() {
        return memory.to_path_buf();
    }
    std::env::temp_dir()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // OK to ignore: what stays lies in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Says on stderr, past the capture of the test harness, what was not tested.
pub(super) fn skip(test: &str, missing: &str) {
    let line = format!("SKIPPED {test}: needs {missing}\n");
    // OK to ignore: without stderr nobody can be told.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Layers in the making.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) scratch: Scratch,
    pub(super) layers: Vec<PathBuf>,
    pub(super) options: MergeOptions,
    pub(super) threads: usize,
}

impl Chain {
    /// `count` empty layers, with trusted marks for root, else user marks.
    pub(super) fn new(count: usize) -> Self {
        let options = MergeOptions {
            userxattr: !is_root(),
            ..MergeOptions::default()
        };
        Self::with(count, options)
    }

    pub(super) fn with(count: usize, options: MergeOptions) -> Self {
        let scratch = Scratch::new();
        let layers: Vec<_> = (0..count)
            .map(|layer| scratch.0.join(format!("layer{layer}")))
            .collect();
        for layer in &layers {
            fs::create_dir(layer).expect("a layer");
        }
        Self {
            scratch,
            layers,
            options,
            threads: 2,
        }
    }

    pub(super) fn path(&self, layer: usize, path: &str) -> PathBuf {
        self.layers[layer].join(path)
    }

    /// A directory and all above it.
    pub(super) fn dir(&self, layer: usize, path: &str) -> &Self {
        fs::create_dir_all(self.path(layer, path)).expect("a directory");
        self
    }

    fn parent(&self, layer: usize, path: &str) -> PathBuf {
        let path = self.path(layer, path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("its parent");
        path
    }

    /// A file, with all directories above it.
    pub(super) fn file(&self, layer: usize, path: &str, content: &str) -> &Self {
        fs::write(self.parent(layer, path), content).expect("a file");
        self
    }

    pub(super) fn symlink(&self, layer: usize, path: &str, target: &str) -> &Self {
        std::os::unix::fs::symlink(target, self.parent(layer, path)).expect("a symlink");
        self
    }

    pub(super) fn hard_link(&self, from: (usize, &str), to: (usize, &str)) -> &Self {
        fs::hard_link(self.path(from.0, from.1), self.parent(to.0, to.1)).expect("a link");
        self
    }

    /// Any user may make a whiteout (Linux 4.18 and newer).
    pub(super) fn whiteout(&self, layer: usize, path: &str) -> &Self {
        self.node(layer, path, FileType::CharacterDevice, 0, 0, 0)
    }

    pub(super) fn node(
        &self,
        layer: usize,
        path: &str,
        kind: FileType,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> &Self {
        let path = self.parent(layer, path);
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), device).expect("a node");
        self
    }

    /// An overlay mark in the chain's own namespace.
    pub(super) fn mark(&self, layer: usize, path: &str, mark: &str, value: &[u8]) -> &Self {
        let space = if self.options.userxattr {
            "user"
        } else {
            "trusted"
        };
        self.xattr(layer, path, &format!("{space}.overlay.{mark}"), value)
    }

    pub(super) fn xattr(&self, layer: usize, path: &str, name: &str, value: &[u8]) -> &Self {
        let path = self.path(layer, path);
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).expect("an attribute");
        self
    }

    pub(super) fn merge(&self) -> Result<Merged> {
        self.merge_in_way(None, self.layers.len())
    }

    /// The chain's first `count` layers only.
    pub(super) fn merge_base(&self, count: usize) -> Result<Merged> {
        self.merge_in_way(None, count)
    }

    pub(super) fn merge_in_way(&self, way: Option<Way>, count: usize) -> Result<Merged> {
        let control = Control::default();
        let layers = &self.layers[..count];
        merge_in_way(way, layers, self.options, self.threads, &control, |_| {}).map(
            |(tree, files, warnings)| Merged {
                tree,
                files,
                warnings,
            },
        )
    }

    /// What shows: see [`Merged::show`].
    pub(super) fn show(&self) -> Vec<String> {
        self.merge().expect("a merged tree").show()
    }

    /// The text of the error that the merge ends with.
    pub(super) fn error(&self) -> String {
        match self.merge() {
            Err(error) => error.to_string(),
            Ok(merged) => panic!("no error, but {:?}", merged.show()),
        }
    }
}

/// A merged chain.
pub(super) struct Merged {
    pub(super) tree: Tree,
    pub(super) files: LayerFiles,
    pub(super) warnings: Vec<String>,
}

impl Merged {
    /// One line for each name, sorted: `dir/`, `dir/file=content`,
    /// `link -> target`, `null c1:3`, `fifo p`, `socket s`.
    pub(super) fn show(&self) -> Vec<String> {
        let mut opener = self.files.opener(&self.tree);
        let mut lines: Vec<String> = self
            .paths()
            .into_iter()
            .filter(|(node, _)| *node != self.tree.root())
            .map(|(node, path)| match self.tree.node(node).kind {
                Kind::Directory(_) => format!("{path}/"),
                Kind::File { .. } => format!("{path}={}", self.content(node, &mut *opener)),
                Kind::Symlink(target) => {
                    format!(
                        "{path} -> {}",
                        String::from_utf8_lossy(self.tree.name(target))
                    )
                }
                Kind::CharDevice(device) => format!("{path} c{}:{}", device.major, device.minor),
                Kind::BlockDevice(device) => format!("{path} b{}:{}", device.major, device.minor),
                Kind::Fifo => format!("{path} p"),
                Kind::Socket => format!("{path} s"),
            })
            .collect();
        lines.sort();
        lines
    }

    /// Opens every file, whatever its depth; returns how many there are.
    pub(super) fn open_all(&self) -> usize {
        let mut opener = self.files.opener(&self.tree);
        let files = self.tree.nodes().filter_map(|(_, node)| match node.kind {
            Kind::File { size, content } => Some((size, content)),
            _ => None,
        });
        let mut opened = 0;
        for (size, content) in files {
            let Opened::File(file) = opener.open(content).expect("a file") else {
                panic!("no file");
            };
            opener.still_same(content, size, &file).expect("the same");
            opened += 1;
        }
        opened
    }

    fn content(&self, node: NodeId, opener: &mut dyn Opener) -> String {
        let Kind::File { size, content } = self.tree.node(node).kind else {
            panic!("no file");
        };
        if size == 0 {
            // Whoever writes an image does not open it either.
            return String::new();
        }
        match opener.open(content).expect("an opened file") {
            Opened::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Opened::File(file) => {
                let mut text = String::new();
                fs::File::from(file)
                    .read_to_string(&mut text)
                    .expect("its content");
                text
            }
        }
    }

    /// All names, the root's as "", a directory before what is in it.
    pub(super) fn paths(&self) -> Vec<(NodeId, String)> {
        let mut found = Vec::new();
        let mut pending = vec![(self.tree.root(), String::new())];
        while let Some((node, path)) = pending.pop() {
            if let Some(directory) = self.tree.directory(node) {
                for entry in directory.entries.iter().rev() {
                    let name = String::from_utf8_lossy(self.tree.name(entry.name));
                    let slash = if path.is_empty() { "" } else { "/" };
                    pending.push((entry.node, format!("{path}{slash}{name}")));
                }
            }
            found.push((node, path));
        }
        found
    }

    pub(super) fn at(&self, path: &str) -> NodeId {
        path.split('/').fold(self.tree.root(), |directory, name| {
            self.tree
                .lookup(directory, name.as_bytes())
                .unwrap_or_else(|| panic!("no {path}"))
        })
    }

    /// The attributes of a path, as `name=value`.
    pub(super) fn xattrs(&self, path: &str) -> Vec<String> {
        let node = if path.is_empty() {
            self.tree.root()
        } else {
            self.at(path)
        };
        self.tree
            .xattrs(self.tree.node(node).metadata.xattrs)
            .iter()
            .map(|xattr| {
                let (name, value) = (&xattr.name, &xattr.value);
                format!(
                    "{}={}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                )
            })
            // SELinux and the like label every file of the host.
            .filter(|xattr| !xattr.starts_with("security."))
            .collect()
    }

    /// The slots, short: `D path names/bytes`, `N path`, `ghost size`,
    /// `G names/bytes` (`G+` where it would be numbered).
    pub(super) fn slots(&self) -> Vec<String> {
        let paths = self.paths();
        let path = |wanted: NodeId| {
            let found = paths.iter().find(|(node, _)| *node == wanted);
            found.map_or("?", |(_, path)| path.as_str())
        };
        let slots = self.tree.slots().iter();
        slots
            .map(|slot| match *slot {
                Slot::Directory { node, names, bytes } => {
                    format!("D {} {names}/{bytes}", path(node))
                }
                Slot::Node(node) => format!("N {}", path(node)),
                Slot::Ghost { size, .. } => format!("ghost {size}"),
                Slot::GhostDirectory {
                    inode,
                    names,
                    bytes,
                } => format!("G{} {names}/{bytes}", if inode { "+" } else { "" }),
            })
            .collect()
    }

    /// All that the tree says, for comparing two of them.
    pub(super) fn describe(&self) -> String {
        use std::fmt::Write as _;

        let tree = &self.tree;
        let mut text = format!("{:?}\n{:?}\n", tree.metadata_digest(), tree.slots());
        for (id, node) in tree.nodes() {
            // OK to ignore: writing to a string cannot fail.
            let _ = writeln!(text, "{id:?} {node:?} {:?}", tree.directory(id));
            if let Kind::File { content, .. } = node.kind {
                let _ = writeln!(text, "{:?}", tree.content(content));
            }
            let _ = writeln!(text, "{:?}", tree.xattrs(node.metadata.xattrs));
        }
        text
    }
}

/// Sorted, owned: for comparing with [`Chain::show`].
pub(super) fn lines(expected: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = expected.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

/// Sets the mtime of a path, not following symlinks.
pub(super) fn set_mtime(path: &Path, seconds: i64, nanoseconds: u32) {
    use rustix::fs::{AtFlags, Timespec, Timestamps};

    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let path = path.as_os_str().as_bytes();
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("an mtime");
}
