"""One-line breaks of the merge: each rule undone once, in the source text."""

from __future__ import annotations

from dataclasses import dataclass

LAYERS = "rust/core/src/layers/"


@dataclass(frozen=True)
class Break:
    """Replaces ``search``, which occurs once in ``file``, by ``replace``."""

    section: str
    rule: str
    file: str
    search: str
    replace: str
    #: Which tests can see it.
    tests: str = "tests/integration/test_kernel_merge.py"
    #: A second place in the same file that keeps the same rule.
    also: tuple[str, str] | None = None


KERNEL = "tests/integration/test_kernel_merge.py"


def _in(
    file: str,
    section: str,
    rule: str,
    search: str,
    replace: str,
    tests: str = KERNEL,
    also: tuple[str, str] | None = None,
) -> Break:
    return Break(section, rule, LAYERS + file, search, replace, tests, also)


MIDWAY = "tests/integration/test_failures_midway.py"
FAILURES = "tests/integration/test_failures.py"

_CHAR_00 = "if kind == Type::CharDevice && entry.size == 0 && !shared.options.raw {"
_OPAQUE = "if scan.is_opaque(entry) {\n            break;"

#: An empty name is refused when it is looked up as well.
_NAMES = ('!matches!(name, b"" | b"." | b"..")', '!matches!(name, b"." | b"..")')

BREAKS: tuple[Break, ...] = (
    # 2.1, 2.5
    _in(
        "merge.rs", "2.1", "upper layers come first", "scan.roots.iter().rev().map(", "scan.roots.iter().map("
    ),
    _in(
        "merge.rs",
        "2.1",
        "a directory's attributes are the topmost's",
        "let top = room.hits[at];",
        "let top = room.hits[at + run.hits - 1];",
    ),
    _in(
        "merge.rs",
        "2.5",
        "a non-directory between directories ends the search",
        "// Under directories it ends the run, and begins the next one.",
        "if taken.directories > 0 && !entry.has(Flags::WHITEOUT) { taken.hits += 1; continue; }",
    ),
    # 2.2
    _in(
        "inspect.rs",
        "2.2",
        "char 0:0 is a whiteout",
        _CHAR_00,
        "if kind == Type::CharDevice && entry.size == u64::MAX {",
    ),
    _in(
        "inspect.rs",
        "2.2",
        "of any mode",
        _CHAR_00,
        "if kind == Type::CharDevice && entry.size == 0 && entry.mode & 0o7777 == 0 {",
    ),
    _in(
        "inspect.rs",
        "2.2",
        "block 0:0 is none",
        _CHAR_00,
        "if matches!(kind, Type::CharDevice | Type::BlockDevice) && entry.size == 0 {",
    ),
    _in(
        "inspect.rs",
        "2.2",
        "the minor counts",
        _CHAR_00,
        "if kind == Type::CharDevice && entry.size >> 32 == 0 {",
    ),
    _in(
        "inspect.rs",
        "2.2",
        "the major counts",
        _CHAR_00,
        "if kind == Type::CharDevice && entry.size & 0xffff_ffff == 0 {",
    ),
    _in(
        "xattrs.rs",
        "2.2",
        "an empty file with the mark is a whiteout",
        "Class::Whiteout if kind == Type::File && size == 0 => {",
        "Class::Whiteout if kind == Type::File && size == u64::MAX => {",
    ),
    _in(
        "xattrs.rs",
        "2.2",
        "... only an empty one",
        "Class::Whiteout if kind == Type::File && size == 0 => {",
        "Class::Whiteout if kind == Type::File => {",
    ),
    _in(
        "xattrs.rs",
        "2.2",
        "... only a regular file",
        "Class::Whiteout if kind == Type::File && size == 0 => {",
        "Class::Whiteout if kind == Type::File && size == 0 || kind == Type::Fifo => {",
    ),
    _in(
        "merge.rs",
        "2.2",
        "a whiteout between directories ends the search",
        "// Under directories it ends the run, and begins the next one.",
        "if taken.directories > 0 && entry.has(Flags::WHITEOUT) { continue; }",
    ),
    # 2.3
    _in(
        "merge.rs",
        "2.3",
        "a whiteout never shows",
        "} else if !scan.entry(top.entry).has(Flags::WHITEOUT) {",
        "} else {",
    ),
    # 2.4
    _in("merge.rs", "2.4", "opaque hides what is below", _OPAQUE, "if false {\n            break;"),
    _in(
        "xattrs.rs",
        "2.4",
        'only "y" is opaque: not "n"',
        '? == b"y";',
        '? != b"";',
    ),
    _in("xattrs.rs", "2.4", '... not "x"', '? == b"y";', '? != b"n";'),
    _in("xattrs.rs", "2.4", '... not "yy"', '? == b"y";', "?.first() == Some(&b'y');"),
    _in(
        "merge.rs",
        "2.4",
        "opaque on a root is ignored",
        "self.members.extend_from_slice(&self.roots);",
        "let opaque = scan.roots.iter().rev().position(|root| scan.is_opaque(root));"
        "self.roots.truncate(opaque.map_or(self.roots.len(), |at| at + 1));"
        "self.members.extend_from_slice(&self.roots);",
    ),
    # 2.6
    _in(
        "merge.rs",
        "2.6",
        "redirects are followed",
        "if entry.has(Flags::REDIRECT) {",
        "if false {",
    ),
    _in(
        "lookup.rs",
        "2.6",
        "an absolute one is looked up in every layer below",
        "&& search.name.first() == Some(&b'/') && stack != roots {",
        "&& search.name.is_empty() {",
    ),
    _in(
        "redirect.rs",
        "2.6",
        "a relative one has no slash",
        "None => !value.contains(&b'/'),",
        "None => true,",
    ),
    _in(
        "redirect.rs",
        "2.6",
        "no name in it is empty",
        ".all(|name| !name.is_empty()),",
        ".all(|_| true),",
        also=_NAMES,
    ),
    _in("redirect.rs", "2.6", "it is not empty", "if value.is_empty() {", "if false {", also=_NAMES),
    _in(
        "redirect.rs",
        "2.6",
        "it ends at a NUL",
        "let value = value.split(|&byte| byte == 0).next().unwrap_or(value);",
        "",
    ),
    _in(
        "redirect.rs",
        "2.6",
        'no "." or ".." in it',
        '!matches!(name, b"" | b"." | b"..")',
        '!matches!(name, b"")',
    ),
    _in("lookup.rs", "2.6", "an absolute one goes on below opaque", "self.stop = false;", ""),
    _in(
        "lookup.rs",
        "2.6",
        "a whiteout in its path ends the search",
        "if entry.has(Flags::WHITEOUT) {\n            self.stop = true;",
        "if entry.has(Flags::WHITEOUT) {",
    ),
    _in(
        "lookup.rs",
        "2.6",
        "a non-directory in its path ends the search",
        "if self.is_dir || !last_name {\n                self.stop = true;",
        "if self.is_dir || !last_name {",
    ),
    _in(
        "lookup.rs",
        "2.6",
        "an opaque directory in its path ends the search",
        "if self.scan.is_opaque(entry) {\n                self.stop = true;",
        "if self.scan.is_opaque(entry) {",
    ),
    _in(
        "lookup.rs",
        "2.6",
        "a relative redirect in its path keeps what is before",
        "name.extend_from_slice(&self.name[..prefix]);",
        "",
    ),
    _in(
        "lookup.rs",
        "2.6",
        "a redirect in its path keeps what is after",
        "name.extend_from_slice(post);",
        "",
    ),
    _in(
        "lookup.rs",
        "2.6",
        "none with userxattr",
        "if userxattr && search.redirected.is_some() {",
        "if false {",
    ),
    _in(
        "lookup.rs",
        "2.6",
        "in the last layer of a directory none is looked at with userxattr",
        "search.last = if userxattr {",
        "search.last = if false {",
    ),
    # 2.7
    _in(
        "merge.rs",
        "2.7",
        "metacopy is followed",
        "taken.marked = entry.has(Flags::METACOPY);",
        "taken.marked = false;",
    ),
    _in(
        "lookup.rs",
        "2.7",
        "its data is the lower's",
        "Ok(Resolved::Other { top, data })",
        "Ok(Resolved::Other { top, data: top })",
    ),
    _in(
        "merge.rs",
        "2.7",
        "its attributes are the top's",
        "let entry = scan.entry(top.entry);\n        let kind = match",
        "let entry = scan.entry(data.entry);\n        let kind = match",
    ),
    _in(
        "lookup.rs",
        "2.7",
        "data of another size is refused",
        "if top != data && said != real {",
        "if false {",
    ),
    _in(
        "lookup.rs",
        "2.7",
        "only a regular file below has data",
        "if last_name && self.metacopy && !is_file {",
        "if false {",
    ),
    _in(
        "lookup.rs",
        "2.7",
        "its redirect is followed",
        "if !self.metacopy || self.last {",
        "if true {",
    ),
    _in(
        "xattrs.rs",
        "2.7",
        "a mark too short is refused",
        "if !valid_metacopy(",
        "if false && !valid_metacopy(",
    ),
    # 2.8
    _in(
        "xattrs.rs",
        "2.8",
        "overlay's own never show",
        "None => Class::Dropped,",
        'None => Class::Shown(name, b""),',
    ),
    _in(
        "xattrs.rs",
        "2.8",
        "escaped ones lose a level",
        "Some(rest) => Class::Shown(&name[..prefix.len()], rest),",
        'Some(_) => Class::Shown(name, b""),',
    ),
    _in(
        "xattrs.rs",
        "2.8",
        "... and are not lost",
        "Some(rest) => Class::Shown(&name[..prefix.len()], rest),",
        "Some(_) => Class::Dropped,",
    ),
    _in(
        "xattrs.rs",
        "2.8",
        "the prefix ends with a dot",
        'b"trusted.overlay."\n    };',
        'b"trusted.overlay"\n    };',
    ),
    _in(
        "xattrs.rs",
        "2.8",
        "userxattr changes the namespace",
        "= if options.userxattr {",
        "= if false {",
    ),
    _in(
        "xattrs.rs",
        "2.8",
        "trusted.SGI_ACL_* is dropped",
        'name.starts_with(b"trusted.SGI_ACL_")',
        'name.starts_with(b"trusted.SGI_ACL__")',
    ),
    _in(
        "merge.rs",
        "2.1",
        "file xattrs are the top's",
        "let at = entry.xattrs as usize;",
        "let at = 0 * entry.xattrs as usize;",
    ),
    # 2.9
    _in(
        "inspect.rs",
        "2.9",
        ".wh. names are ordinary",
        "if self.shared.options.fuse_overlayfs {",
        "if true {",
    ),
    # 2.10
    _in(
        "merge.rs",
        "2.10",
        "names of one inode are one",
        "=> self.fates.links.known(&entry),",
        "=> None,",
    ),
    _in(
        "fates.rs", "2.10", "the device tells inodes apart", "(entry.device, entry.inode)", "(0, entry.inode)"
    ),
    _in(
        "inspect.rs",
        "2.10",
        "symlinks and devices have links too",
        "kind != Type::Directory && linked",
        "kind == Type::File && linked",
    ),
    # 2.11
    _in(
        "merge.rs",
        "2.11",
        "the root's attributes are the top layer's",
        "let top = scan.roots[scan.roots.len() - 1];\n    let mut merger",
        "let top = scan.roots[0];\n    let mut merger",
    ),
    _in(
        "merge.rs",
        "2.11",
        "the root's xattrs are the top layer's",
        "let top = scan.roots[scan.roots.len() - 1];\n        let root",
        "let top = scan.roots[0];\n        let root",
    ),
    _in(
        "merge.rs",
        "2.11",
        "setuid, setgid and sticky stay",
        "entry.mode & 0o7777",
        "entry.mode & 0o777",
    ),
    _in(
        "inspect.rs",
        "2.11",
        "nanoseconds stay",
        "u32::try_from(stat.st_mtime_nsec).unwrap_or(0)",
        "0",
    ),
    _in(
        "inspect.rs",
        "2.11",
        "holes stay",
        "blocks.saturating_mul(512) < size",
        "blocks > size",
    ),
    _in(
        "holes.rs",
        "2.11",
        "and all data between them",
        "_ => self.found.push(Extent {",
        "_ if start > 0 => {}\n            _ => self.found.push(Extent {",
    ),
    _in(
        "entry.rs",
        "2.11",
        "major and minor",
        "major: (self.size >> 32) as u32,",
        "major: (self.size >> 33) as u32,",
    ),
    # what is not the kernel's rule but ours
    # That a file's size is compared when it is opened shows only in the message:
    # one that is shorter gives a short read, of one that is longer the old part is right.
    _in(
        "files.rs",
        "-",
        "a file of another mtime is refused",
        "if mtime != (identity.mtime.seconds, stat.st_mtime_nsec) {",
        "if false {",
        MIDWAY,
    ),
    _in(
        "files.rs", "-", "another file is refused", "if stat.st_ino != identity.inode {", "if false {", MIDWAY
    ),
    _in(
        "merge.rs",
        "-",
        "what may not be read is refused",
        "if from.has(Flags::UNREADABLE) && from.size > 0 {",
        "if false {",
        FAILURES,
    ),
)
