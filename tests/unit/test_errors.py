"""The tree of errors."""

from __future__ import annotations

import errno
import inspect
import pickle
import re
from pathlib import Path

import pytest

from layermelt import errors
from layermelt.errors import Area, LayermeltError

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, LayermeltError) and value.__module__ == "layermelt.errors"
]


def test_every_class_is_public_and_documented() -> None:
    assert {cls.__name__ for cls in CLASSES} == set(errors.__all__)
    assert all(cls.__doc__ for cls in CLASSES)


def test_the_documented_exit_codes_are_the_real_ones() -> None:
    rows = re.findall(r"^(\w+Error) +(\d+) +\S", errors.__doc__ or "", re.MULTILINE)
    assert len(rows) == 11
    for name, code in rows:
        assert getattr(errors, name).return_code == int(code)
    documented = {int(code) for _, code in rows}
    assert {cls.return_code for cls in CLASSES} == documented
    # 0 is success, and the shell's own and click's are not ours to give.
    assert not documented & {0, 126, 127, 130, 143}


@pytest.mark.parametrize("cls", CLASSES)
def test_says_its_message_and_survives_pickling(cls: type[LayermeltError]) -> None:
    for error in (cls("what went wrong"), cls("what went wrong")):
        error.path = "/some/where"
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is cls
        assert str(copy) == str(error) == "what went wrong"
        assert copy.path == "/some/where"
        assert copy.__dict__ == error.__dict__


def test_further_attributes_survive_pickling() -> None:
    small = pickle.loads(pickle.dumps(errors.TooSmallError("small", given=1, needed=2)))
    assert (small.given, small.needed) == (1, 2)
    unreadable = pickle.loads(pickle.dumps(errors.UnreadableError("no", paths=("/a", "/b"))))
    assert unreadable.paths == ("/a", "/b")
    assert unreadable.errno == errno.EACCES


@pytest.mark.parametrize(
    ("area", "number", "cls", "base"),
    [
        ("layer", errno.ENOENT, errors.SourceNotFoundError, FileNotFoundError),
        ("layer", errno.ENOTDIR, errors.SourceNotFoundError, FileNotFoundError),
        ("layer", errno.EACCES, errors.UnreadableError, PermissionError),
        ("layer", errno.EIO, errors.LayerReadError, OSError),
        ("file", errno.ENOENT, errors.InjectionNotFoundError, FileNotFoundError),
        ("file", errno.EPERM, errors.UnreadableError, PermissionError),
        ("file", errno.EIO, errors.InjectionReadError, OSError),
        ("output", errno.ENOSPC, errors.DiskFullError, OSError),
        ("output", errno.EDQUOT, errors.DiskFullError, OSError),
        ("output", errno.EFBIG, errors.DiskFullError, OSError),
        ("output", errno.ENOENT, errors.OutputNotFoundError, FileNotFoundError),
        ("output", errno.EACCES, errors.OutputPermissionError, PermissionError),
        ("output", errno.EROFS, errors.OutputError, OSError),
        ("output", errno.EISDIR, errors.OutputIsADirectoryError, IsADirectoryError),
        ("image", errno.ENOENT, errors.ImageNotFoundError, FileNotFoundError),
        ("image", errno.EACCES, errors.UnreadableError, PermissionError),
        ("image", None, errors.ImageError, OSError),
    ],
)
def test_failed_system_calls(area: Area, number: int | None, cls: type, base: type) -> None:
    error = errors.from_os_error(area, "cannot open /x: some reason (os error 5)", "/x", number)
    assert type(error) is cls
    assert isinstance(error, base)
    assert isinstance(error, OSError)
    assert (error.path, error.filename, error.errno) == ("/x", "/x", number)
    assert str(error).startswith("cannot open /x: some reason")
    assert "os error" not in str(error)


def test_a_full_disk_says_what_to_do() -> None:
    assert "free some space" in str(errors.from_os_error("output", "cannot write", "/x", errno.ENOSPC))
    assert "free some space" not in str(errors.from_os_error("layer", "cannot read", "/x", errno.ENOSPC))


def test_paths_are_of_any_bytes() -> None:
    assert LayermeltError("m", path=b"/\xff").path == "/\udcff"
    assert LayermeltError("m", path=Path("/a")).path == "/a"
