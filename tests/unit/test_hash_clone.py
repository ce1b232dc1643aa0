"""`layermelt hash` and `layermelt clone`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from layermelt import InjectedFile, _core, build_rootfs, digests, errors
from layermelt.cli import cli
from layermelt.cloning import clone_image

#: Made by a program of its own: `path.hash(&mut DefaultHasher::new())`.
PATH_KEY = "9dab79436570ed13"


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    found = run("hash", tmp_path / "f")
    assert bytes.fromhex(found) == _core.file_digest(str(tmp_path / "f"), threads=1, progress=None)
    (tmp_path / "f").write_bytes(b"x" * 2_999_999 + b"y")
    assert run("hash", tmp_path / "f") != found


def test_layers_in_their_order(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    one, two = ("--layer", str(tmp_path / "one")), ("--layer", str(tmp_path / "two"))
    content = run("hash", *one, *two)
    assert content == run("hash", *one, *two, "--threads", "1")
    assert content != run("hash", *two, *one)
    fingerprint = run("hash", "--key", "stat", *one, *two)
    assert fingerprint != content
    os.utime(tmp_path / "two/f", ns=(0, 1))
    assert run("hash", "--key", "stat", *one, *two) != fingerprint
    assert run("hash", *one, *two) != content


def test_a_path_key_is_that_of_older_agents() -> None:
    path = "/var/lib/docker/overlay2/abc"
    assert run("hash", "--key", "path", path) == PATH_KEY
    assert json.loads(run("hash", "--key", "path", "--json", path))["digest"] == PATH_KEY


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_a_path_key_is_made_of_the_paths_bytes(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Python takes them for, an older agent sees UTF-8."""
    monkeypatch.setattr(os, "fsencode", lambda path: path.encode(encoding, "surrogateescape"))
    path = "/café".encode()
    assert digests.path_key(path.decode(encoding, "surrogateescape")) == "148a0b6706cf5122"
    with pytest.raises(errors.InvalidOptionError, match="no UTF-8"):
        digests.path_key(b"/caf\xe9".decode(encoding, "surrogateescape"))


def test_a_path_key_in_the_c_locale() -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "layermelt", "hash", "--key", "path", "/café"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout == "148a0b6706cf5122\n"


def test_why_a_clone_is_no_reflink_is_said(tmp_path: Path) -> None:
    report = clone_image("/proc/self/exe", tmp_path / "clone")
    assert (report.method == "reflink") == (report.reasons == ())
    for reason in report.reasons:
        assert re.fullmatch(r"no (reflink|copy_file_range): [A-Z][a-z -]+", reason)


def test_a_clone_is_equal_and_keeps_holes(tmp_path: Path) -> None:
    source, clone = tmp_path / "source", tmp_path / "clone"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(5 << 20)
        file.write(os.urandom(300_000))
    assert run("clone", source, clone).splitlines()[-1] == str(clone)
    assert clone.read_bytes() == source.read_bytes()
    assert clone.stat().st_blocks * 512 < 2 << 20
    assert sorted(os.listdir(tmp_path)) == ["clone", "source"]


@pytest.mark.parametrize("command", [["hash", "{0}/none"], ["clone", "{0}/none", "{0}/clone"]])
def test_what_is_missing_is_one_message(command: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [word.format(tmp_path) for word in command])
    assert done.exit_code not in (0, 1, 70)
    assert f"{tmp_path}/none" in done.stderr
    assert "Traceback" not in done.output
    assert os.listdir(tmp_path) == []


def test_files_that_hide_their_size(layer: Path, target: Path) -> None:
    """Those of /proc say that they are empty, and are not to be taken for it."""
    runs: list[Callable[[], object]] = [
        lambda: digests.file_digest("/proc/version"),
        lambda: clone_image("/proc/version", target),
        lambda: build_rootfs(
            None, target, layers=[layer], files=[InjectedFile("/v", source="/proc/version")]
        ),
    ]
    for call in runs:
        with pytest.raises(errors.LayermeltError, match=r"/proc/version: it has data but says that it is"):
            call()
    assert os.listdir(target.parent) == []


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "layermelt", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"layermelt {_core.__version__}\n"
