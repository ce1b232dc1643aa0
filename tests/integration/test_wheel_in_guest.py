"""The wheel, installed as users install it, in a machine of Debian's python3 and nothing else.

The guest has no network and no compiler. It melts a chain that lies on its own disk; its
image must be the host's of the same chain, byte for byte.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.oracle import product
from integration.real import apt, boot, in_guest, store

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
PACKAGES = ["python3", "python3-click"]


def build_wheel(folder: Path) -> Path:
    """The wheel that users get."""
    maturin = Path(sys.executable).with_name("maturin")
    command = [str(maturin), "build", "--release", "--locked", "--quiet", "--out", str(folder)]
    # Where cargo lies when it is the user's own.
    path = f"{os.environ['PATH']}:{Path.home()}/.cargo/bin"
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def debian(folder: Path) -> dict[str, Path]:
    """The package files of Debian's python3 and all that it needs."""
    lacking = apt.missing_tools()
    if lacking:
        pytest.skip(f"no packages to make a Debian of: {', '.join(lacking)} missing")
    try:
        archive = apt.Archive(folder)
        archive.update()
        names = archive.resolve(PACKAGES)
        newest = {name: found[-1] for name, found in archive.candidates(names).items()}
        files = archive.fetch(list(newest.values()))
    except apt.AptError as error:
        pytest.skip(f"no packages to make a Debian of: {error}")
    return {name: files[one] for name, one in newest.items()}


def install(wheel: Path, site: Path, python: str) -> None:
    """By pip, for another machine: no index, no compiler, and the wheel must fit that Python."""
    tags = re.findall(r"manylinux_\d+_\d+_\w+|linux_\w+", wheel.name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += [
        "--no-deps",
        "--no-compile",
        "--only-binary",
        ":all:",
        "--python-version",
        python,
        "--target",
        str(site),
    ]
    for tag in tags:
        command += ["--platform", tag]
    subprocess.run([*command, str(wheel)], check=True)


def told(text: str) -> dict[str, Any]:
    """What the program in the guest, or on the host, told."""
    found = re.search(r"melted: (\{.*\})", text)
    assert found is not None, text
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_a_guest_melts_its_own_chain(tmp_path: Path) -> None:
    lacking = boot.missing()
    if lacking:
        pytest.skip(f"cannot boot: {lacking} is missing")
    CACHE.mkdir(exist_ok=True)
    agent = boot.build_agent(CACHE)
    packages = debian(CACHE / "guest" / "apt")
    wheel = build_wheel(tmp_path / "wheel")

    maker = store.ChainMaker(tmp_path / "docker", store.probe_marks(tmp_path))
    with maker.layer("debian"):
        maker.merged_usr()
        for name, file in packages.items():
            maker.install(name, file)
        for name in (*boot.MOUNT_POINTS, "tmp", "var", "root"):
            maker.make_directory(name)
    with maker.layer("layermelt"):
        site = "usr/lib/python3/dist-packages"
        maker.make_directory(site)
        python = re.search(r"python3\.(\d+)-minimal", " ".join(packages))
        assert python is not None, packages
        install(wheel, maker.layers[-1].diff / site, f"3.{python[1]}")
    with maker.layer("program"):
        maker.write("usr/bin/melt", Path(in_guest.__file__).read_bytes(), 0o755)

    image = tmp_path / "rootfs.ext4"
    marks = ["--userxattr"] if maker.marks.userxattr else []
    done = product.run(
        product.command("build", maker.top, "-o", image, "--agent", agent, "--no-sync", *marks)
    )
    assert done.returncode == 0, done.stderr
    booted = boot.boot(image, runs=["/usr/bin/melt"])
    assert "ran /usr/bin/melt: exit code 0" in booted.agent, booted.console
    guest = told(booted.console)
    assert guest["layermelt"].startswith("/usr/lib/python3/dist-packages/layermelt/")
    assert guest["kernel"] in str(boot.kernel())

    done = product.run([sys.executable, in_guest.__file__, str(tmp_path / "host")])
    assert done.returncode == 0, done.stderr
    host = told(done.stdout)
    assert (guest["sha256"], guest["size"]) == (host["sha256"], host["size"])
    assert "EXT4-fs error" not in booted.console
