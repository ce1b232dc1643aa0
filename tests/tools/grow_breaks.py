"""One-line breaks of growing: each rule undone once, in the source text."""

from __future__ import annotations

from tools.breaks import Break

GROW = "rust/core/src/ext4/grow/"
TESTS = "tests/integration/test_grow"
MAKES = f"{TESTS}.py::test_any_make_grows"
SHAPES = f"{TESTS}_shapes.py"
FAILURES = f"{TESTS}_failures.py"
BACKUPS = f"{SHAPES}::test_each_backup_restores_it"
BESIDE = f"{SHAPES}::test_superblock_beside_resize2fs"


def _in(file: str, rule: str, search: str, replace: str, tests: str = MAKES) -> Break:
    path = file if file.endswith(".py") else GROW + file
    return Break("grow", f"grow: {rule}", path, search, replace, tests)


GROW_BREAKS: tuple[Break, ...] = (
    _in(
        "shape.rs",
        "powers of 7 have a superblock",
        "[3, 5, 7].into_iter().any(",
        "[3, 5].into_iter().any(",
    ),
    _in("shape.rs", "powers of 5 have a superblock", "[3, 5, 7].into_iter().any(", "[3, 7].into_iter().any("),
    _in(
        "shape.rs",
        "powers of 7 have a copy",
        "for base in [3u32, 5, 7] {",
        "for base in [3u32, 5] {",
        BACKUPS,
    ),
    _in(
        "shape.rs",
        "powers of 3 have a copy",
        "for base in [3u32, 5, 7] {",
        "for base in [5u32, 7] {",
        BACKUPS,
    ),
    _in(
        "size.rs",
        "50 blocks are of use",
        "const USEFUL: u64 = 50;",
        "const USEFUL: u64 = 49;",
        f"{SHAPES}::test_borders_as_resize2fs_has_them",
    ),
    _in(
        "changes.rs",
        "root's share stays",
        "u128::from(was.reserved_blocks_count) * u128::from(new.blocks)",
        "u128::from(was.reserved_blocks_count) * u128::from(self.old.blocks)",
        BESIDE,
    ),
    _in(
        "changes.rs",
        "free inodes are counted",
        ".saturating_add(more * new.inodes_per_group),",
        ",",
    ),
    _in(
        "changes.rs",
        "copies of the superblock are the new one",
        "copies.push((at, sb.copy_for(group).to_vec()));",
        "let _ = at;",
        BACKUPS,
    ),
    _in(
        "changes.rs",
        "copies of descriptors are the new ones",
        "copies.push((new.byte(at), block.clone()));",
        "let _ = at;",
        BACKUPS,
    ),
    _in(
        "changes.rs",
        "new copies of the superblock",
        "self.disk.write(at, &sb.copy_for(group))?;",
        "self.disk.write(at, &[0])?;",
        BACKUPS,
    ),
    _in(
        "changes.rs",
        "new copies have all descriptors",
        ".filter(|&at| at >= old.blocks || changed.is_some())",
        ".filter(|_| changed.is_some())",
        BACKUPS,
    ),
    _in("descriptor.rs", "a descriptor's checksum", "put_u16(self.0, CHECKSUM_AT, sum);", "let _ = sum;"),
    _in("descriptor.rs", "a bitmap's checksum", "self.put_count(0x18, 0x38, sum);", "let _ = sum;"),
    _in("superblock.rs", "the superblock's checksum", "put_u32(&mut raw, 0x3fc, sum);", "let _ = sum;"),
    _in("inode.rs", "an inode's checksum", "put_u16(raw, 0x7c, low16(sum));", "let _ = low16(sum);"),
    _in(
        "resize_inode.rs",
        "blocks of the resize inode",
        "put_u32(&mut self.raw, 0x1c, sectors);",
        "let _ = sectors;",
    ),
    _in(
        "resize_inode.rs",
        "its blocks name the copies",
        "put_u32(&mut block, number * 4, ",
        "put_u32(&mut block, 0, ",
    ),
    _in(
        "journal.rs",
        "a commit's checksum",
        "put_be32(&mut block, 0x10, sum);",
        "let _ = sum;",
        f"{TESTS}.py::test_a_journal_that_the_kernel_used",
    ),
    _in(
        "journal.rs",
        "a descriptor block's checksum",
        "put_be32(&mut descriptor, self.block_size - 4, sum);",
        "let _ = sum;",
        f"{TESTS}.py::test_a_journal_that_the_kernel_used",
    ),
    _in(
        "journal.rs",
        "a number of its own",
        "be32(&self.raw, 0x18).wrapping_add(be32(&self.raw, 0x10))",
        "be32(&self.raw, 0x18)",
        f"{FAILURES}::test_what_was_not_decided_is_not_taken_for_the_kernel_s",
    ),
    _in(
        "mod.rs",
        "what failed is undone",
        "match undo(&mut disk, &sb, journal, before) {",
        "match Ok::<(), Error>(()) {",
        FAILURES,
    ),
    _in(
        "disk.rs",
        "a full disk is met before",
        "if self.device {\n            return Ok(());",
        "if true {\n            return Ok(());",
        FAILURES,
    ),
    _in(
        "disk.rs",
        "room for what a clone shares",
        "take(keep | FallocateFlags::UNSHARE_RANGE)",
        "take(keep)",
        FAILURES,
    ),
    _in(
        "python/layermelt/busy.py",
        "loop devices are looked for",
        "if device is not None:",
        "if False:",
        f"{TESTS}.py::test_an_image_behind_a_loop_device_is_refused",
    ),
    _in(
        "python/layermelt/busy.py",
        "the image is locked",
        "if not try_range(fd):",
        "if False:",
        "tests/unit/test_grow.py",
    ),
    _in(
        "python/layermelt/growing.py",
        "a copy keeps the mode",
        "publication.commit(sync=sync, mode=stat.S_IMODE(status.st_mode))",
        "publication.commit(sync=sync)",
        f"{TESTS}.py::test_a_copy_keeps_owner_and_mode",
    ),
)
