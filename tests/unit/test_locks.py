"""Locks of files that are removed by their holders."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from layermelt import locks


def test_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a lock whose file its last holder removes while others have it open."""
    monkeypatch.setattr(locks, "_POLL", 0.0)
    path = os.fspath(tmp_path / "lock")
    holders = 0
    most = 0
    count = 0
    guard = threading.Lock()
    end = time.monotonic() + 1.5

    def hold() -> None:
        nonlocal holders, most, count
        while time.monotonic() < end:
            with locks.exclusive(path):
                with guard:
                    holders += 1
                    most = max(most, holders)
                    count += 1
                time.sleep(0)
                with guard:
                    holders -= 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=hold) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert count > 100
    assert most == 1
    assert os.listdir(tmp_path) == []


def test_who_waits_can_be_stopped(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "lock")

    def stop() -> None:
        raise InterruptedError

    with locks.exclusive(path) as waited:
        assert not waited
        with pytest.raises(InterruptedError), locks.exclusive(path, wait=stop):
            pass
    assert os.listdir(tmp_path) == []


def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is a holder, and nothing is left either."""

    def flock(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = os.fspath(tmp_path / "lock")
    with locks.exclusive(path) as waited, locks.exclusive(path) as again:
        assert (waited, again) == (False, False)
    assert os.listdir(tmp_path) == []


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"), locks.exclusive(os.fspath(tmp_path / "lock")):
        pass
    assert not (tmp_path / "elsewhere").exists()
