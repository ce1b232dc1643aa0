#!/usr/bin/env python3
"""Undoes each rule of the merge once and names the cases that notice it.

    python tests/tools/break_rules.py FOLDER [WORD...]

copies the project, as it is committed, into FOLDER, builds it there once per break of ``breaks.py``,
``image_breaks.py``, ``grow_breaks.py`` and ``host_breaks.py`` (with WORDs: those of that section, or whose rule has the word in it), runs the
tests that can see it, and prints a table: rule -> cases that failed. A break that nothing notices is a
gap in the tests; one that no longer applies is a fault of the list. Both fail the run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.breaks import BREAKS, Break
from tools.grow_breaks import GROW_BREAKS
from tools.host_breaks import HOST_BREAKS
from tools.image_breaks import IMAGE_BREAKS

PROJECT = Path(__file__).resolve().parents[2]
#: One store is enough to see a broken merge, but for what only one can hold.
STORES = "(ext4 or subvolumes or xfs_lists)"


def copy_project(folder: Path) -> Path:
    """A copy of the project as it is committed, built in a folder of its own."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    committed = subprocess.run(["git", "archive", "HEAD"], cwd=PROJECT, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=copy, input=committed.stdout, check=True)
    cache = PROJECT / ".cache"
    if cache.is_dir():
        (copy / ".cache").symlink_to(cache)
    return copy


def build(copy: Path, folder: Path) -> str | None:
    """Builds the extension into the copy; the compiler's message if it fails."""
    target = folder / "target"
    done = subprocess.run(
        [
            *("cargo", "build", "-q", "--manifest-path", "rust/py/Cargo.toml"),
            *("--features", "pyo3/extension-module"),
        ],
        cwd=copy,
        env={**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_DEV_OPT_LEVEL": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return done.stderr
    # An abi3 module; cargo names it after the crate's library.
    built = next(path for path in sorted((target / "debug").glob("lib*.so")))
    shutil.copy2(built, copy / "python/layermelt/_core.abi3.so")
    return None


def selections(one: Break) -> list[str]:
    """Which tests to ask: those of the rule's section, and then all."""
    if "kernel_merge" not in one.tests:
        return [""]
    return [f"{one.section}- and {STORES}", STORES]


def failures(copy: Path, tests: str, selection: str) -> list[str]:
    """The selected tests that fail in the copy."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider"),
            "--timeout=300",
            # What is made below /tmp others' runs may sweep.
            f"--basetemp={copy.parent / 'made'}",
            *("-k", selection, tests),
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        return [f"pytest exits {done.returncode}: {done.stdout[-500:]}"]
    return re.findall(r"^FAILED \S+?::(\S+)", done.stdout, re.MULTILINE)


def apply(one: Break, copy: Path) -> bool:
    """Makes the break; False if the text is not there exactly once."""
    file = copy / one.file
    text = file.read_text()
    for search, replace in [(one.search, one.replace), *([one.also] if one.also else [])]:
        if text.count(search) != 1:
            return False
        text = text.replace(search, replace)
    file.write_text(text)
    return True


def try_out(one: Break, copy: Path, folder: Path, already: set[str]) -> tuple[bool, str]:
    """Whether the break was noticed, and what noticed it but for ``already``."""
    original = (copy / one.file).read_bytes()
    try:
        if not apply(one, copy):
            return False, "DOES NOT APPLY"
        message = build(copy, folder)
        if message is not None:
            return False, f"DOES NOT COMPILE: {message[-300:]}"
        found: list[str] = []
        for selection in selections(one):
            found = [name for name in failures(copy, one.tests, selection) if name not in already]
            if found:
                break
    finally:
        (copy / one.file).write_bytes(original)
    names = [re.sub(r"^.*\[(?:\d\.\d+-)?(.*)\]$", r"\1", name).removesuffix("-ext4") for name in found]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return bool(names), shown or "NOT NOTICED"


def main() -> int:
    """Runs all breaks; 0 if each was noticed."""
    folder = Path(sys.argv[1]).resolve()
    words = sys.argv[2:]
    copy = copy_project(folder)
    message = build(copy, folder)
    if message is not None:
        print(message, file=sys.stderr)
        return 1
    known = (*BREAKS, *IMAGE_BREAKS, *GROW_BREAKS, *HOST_BREAKS)
    chosen = [
        one for one in known if not words or any(word == one.section or word in one.rule for word in words)
    ]
    already: set[str] = set()
    for tests, selection in sorted({(one.tests, selections(one)[-1]) for one in chosen}):
        already |= set(failures(copy, tests, selection))
    if already:
        print(f"fail unbroken and are not counted: {sorted(already)}", file=sys.stderr)
    print("| section | rule undone | noticed by |\n|---|---|---|", flush=True)
    good = True
    for one in chosen:
        noticed, by = try_out(one, copy, folder, already)
        good &= noticed
        print(f"| {one.section} | {one.rule} | {by} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
