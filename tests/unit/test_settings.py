"""Values that users write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layermelt import settings
from layermelt.errors import InvalidOptionError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("1K", 1 << 10),
        ("3m", 3 << 20),
        ("2G", 2 << 30),
        ("2GiB", 2 << 30),
        ("2GB", 2 << 30),
        (" 1T ", 1 << 40),
        ("512B", 512),
        ((1 << 63) - 1, (1 << 63) - 1),
    ],
)
def test_sizes(text: int | str, number: int) -> None:
    assert settings.parse_size(text, "size") == number


@pytest.mark.parametrize(
    "value",
    ["", "K", "-1", -1, "1.5G", "1P", "0x10", "1 G", "१", "9" * 30, 1 << 63, "8388608T", True, 1.5, None],
)
def test_sizes_that_are_none(value: int) -> None:
    with pytest.raises(InvalidOptionError, match="invalid free space"):
        settings.parse_size(value, "free space")


@pytest.mark.parametrize(
    ("text", "mode"), [("644", 0o644), ("0755", 0o755), ("0o4755", 0o4755), (0o600, 0o600)]
)
def test_modes(text: int | str, mode: int) -> None:
    assert settings.parse_mode(text, "mode") == mode


@pytest.mark.parametrize("value", ["", "8", "u+x", "10000", -1, 0o10000, True])
def test_modes_that_are_none(value: int | str) -> None:
    with pytest.raises(InvalidOptionError, match="invalid mode"):
        settings.parse_mode(value, "mode")


def test_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.source_date_epoch() is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert settings.source_date_epoch() is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert settings.source_date_epoch() == 1_700_000_000


@pytest.mark.parametrize("text", ["now", "-1", "1e9", "1.5", "0x1", "9" * 19])
def test_source_date_epoch_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(InvalidOptionError, match="SOURCE_DATE_EPOCH"):
        settings.source_date_epoch()


def test_docker_root(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.default_docker_root() == "/var/lib/docker"
    monkeypatch.setenv("LAYERMELT_DOCKER_ROOT", "/elsewhere")
    assert settings.default_docker_root() == "/elsewhere"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache does not come to lie in a directory "~" of wherever the user happens to be."""
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert settings.default_cache_dir() == f"{tmp_path}/.cache/layermelt"
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(InvalidOptionError, match=r"no home directory.*LAYERMELT_CACHE_DIR"):
        settings.default_cache_dir()
    # As it is without HOME for a user whom /etc/passwd does not know.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(InvalidOptionError, match="no home directory"):
        settings.default_cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert settings.default_cache_dir() == "/elsewhere/layermelt"
