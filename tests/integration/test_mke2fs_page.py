"""docs/mke2fs.md: what dumpe2fs says of ours and of mke2fs's, and why it differs."""

from __future__ import annotations

import pytest

from tools import mke2fs_page, newest_e2fsprogs
from tools.mke2fs_page import PAGE, Programs, Row, Tables


@pytest.fixture(scope="module")
def installed() -> Programs:
    try:
        return Programs.installed()
    except mke2fs_page.MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def newest() -> Programs:
    try:
        return Programs(newest_e2fsprogs.commands())
    except newest_e2fsprogs.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tables(installed: Programs) -> Tables:
    return mke2fs_page.measure(installed)


@pytest.fixture
def page() -> str:
    return PAGE.read_text()


def test_each_difference_has_a_reason_and_each_reason_a_difference(page: str, tables: Tables) -> None:
    assert mke2fs_page.complaints(page, tables) == []


def test_so_it_is_with_the_newest_mke2fs(page: str, newest: Programs) -> None:
    assert mke2fs_page.complaints(page, mke2fs_page.measure(newest)) == []


def test_the_tables_are_what_the_programs_print(page: str, tables: Tables, installed: Programs) -> None:
    made_with = mke2fs_page.release(page)
    if installed.version != made_with:
        pytest.skip(f"the tables were made with e2fsprogs {made_with}, here is {installed.version}")
    written = mke2fs_page.with_tables(page, tables, installed.version)
    assert written == page, f"put the tables in with {mke2fs_page.__file__} --write"


def test_what_nobody_explained_is_told(page: str, tables: Tables) -> None:
    other = {**tables, "large": [*tables["large"], Row("Errors behavior", "Panic", "Continue")]}
    assert mke2fs_page.complaints(page, other) == [
        "large: Errors behavior: not explained: ours Panic, mke2fs Continue"
    ]
    absent = {**tables, "compat": [*tables["compat"], Row("Orphan file inode", None, "12")]}
    assert mke2fs_page.complaints(page, absent) == [
        "compat: Orphan file inode: not explained: ours None, mke2fs 12"
    ]


def test_a_reason_that_is_gone_is_told(page: str, tables: Tables) -> None:
    rows = [Row(row.field, "0", "0") if row.field == "Lifetime writes" else row for row in tables["small"]]
    assert mke2fs_page.complaints(page, {**tables, "small": rows}) == [
        "small: Nobody wrote yet: there is no difference in Lifetime writes"
    ]


def test_the_reasons_account_for_each_block(tables: Tables) -> None:
    """What is said of the sizes of things adds up to the difference in free blocks."""
    # A fifth run of the journal; lost+found, which mke2fs alone makes.
    further = {"default": 0, "compat": 0, "large": 1, "readonly": -4}
    for pair, blocks in further.items():
        ours = {row.field: row.ours or "0" for row in tables[pair]}
        theirs = {row.field: row.theirs or "0" for row in tables[pair]}

        def more(field: str, ours: dict[str, str] = ours, theirs: dict[str, str] = theirs) -> int:
            return int(ours.get(field, "0")) - int(theirs.get(field, "0"))

        copies = len(_numbers(ours["Groups with a superblock"]))
        assert more("Overhead clusters") == more("Reserved GDT blocks") * copies, pair
        assert more("Free blocks") == -more("Overhead clusters") - blocks, pair


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for run in text.split(", "):
        first, _, last = run.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
