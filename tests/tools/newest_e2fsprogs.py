#!/usr/bin/env python3
"""Gets the newest e2fsprogs that Debian has, without installing anything.

Packages of Debian's unstable suite are fetched by apt with a sources list and
a state of its own, unpacked into a folder, and run through their own dynamic
loader and C library: the machine's apt configuration and libraries stay as
they are. The archive's address is that of the machine's own apt sources.

    python tests/tools/newest_e2fsprogs.py [FOLDER]

prints the release and where its programs are. Done once, it does nothing more.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUITE = "sid"
#: e2fsprogs with every library that its programs load.
PACKAGES = (
    "e2fsprogs",
    "libblkid1",
    "libc6",
    "libcom-err2",
    "libext2fs2t64",
    "libss2",
    "libuuid1",
)
TOOLS = ("e2fsck", "dumpe2fs", "debugfs", "mke2fs", "resize2fs", "tune2fs")
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "e2fsprogs"


class UnavailableError(RuntimeError):
    """The newest e2fsprogs cannot be had here; the text says why."""


def commands(folder: Path = DEFAULT_FOLDER) -> dict[str, list[str]]:
    """How to start each tool of the newest e2fsprogs, fetching it if need be."""
    root = folder / "root"
    with _lock(folder):
        if not (folder / "complete").exists():
            _fetch(folder, root)
            (folder / "complete").touch()
    loader = _only(root, "ld-linux*.so.*")
    libraries = sorted({str(found.parent) for found in root.rglob("lib*.so.*")})
    start = [str(loader), "--library-path", ":".join(libraries)]
    return {name: [*start, str(_only(root, name))] for name in TOOLS}


def _fetch(folder: Path, root: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise UnavailableError("apt-get and dpkg-deb are needed to fetch e2fsprogs")
    state = folder / "apt"
    for name in ("state/lists/partial", "cache/archives/partial", "empty"):
        (state / name).mkdir(parents=True, exist_ok=True)
    address, keyring = _archive()
    (state / "sources.list").write_text(f"deb [signed-by={keyring}] {address} {SUITE} main\n")
    options = [
        f"-oDir::Etc::SourceList={state}/sources.list",
        f"-oDir::Etc::SourceParts={state}/empty",
        f"-oDir::State={state}/state",
        f"-oDir::Cache={state}/cache",
        # The download user may not enter our folder.
        "-oAPT::Sandbox::User=",
        "-oAcquire::Languages=none",
    ]
    _run(["apt-get", "-qq", *options, "update"], folder)
    _run(["apt-get", "-qq", *options, "download", *PACKAGES], state / "cache")
    shutil.rmtree(root, ignore_errors=True)
    for package in sorted((state / "cache").glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], folder)
    shutil.rmtree(state)


def _archive() -> tuple[str, str]:
    """Address and keyring of the Debian archive in the machine's apt sources."""
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    for file in [*sorted(Path("/etc/apt").glob("sources.list.d/*")), Path("/etc/apt/sources.list")]:
        if not file.is_file():
            continue
        for words in _sources(file.read_text()):
            for word in words:
                if re.fullmatch(r"https?://\S+/debian/?", word):
                    return word, keyring
    raise UnavailableError("no Debian archive is named in /etc/apt")


def _sources(text: str) -> Iterator[list[str]]:
    """The words of each line that can name an archive, in either format."""
    for line in text.splitlines():
        if line.startswith(("deb ", "URIs:")):
            yield line.split()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _only(root: Path, pattern: str) -> Path:
    # A merged /usr: what looks like two files is one behind links.
    found = {path.resolve() for path in root.rglob(pattern) if path.is_file()}
    if len(found) != 1:
        raise UnavailableError(f"{pattern} in {root}: {sorted(found)}")
    return found.pop()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Fetches, says what there is."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    try:
        found = commands(folder)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    banner = subprocess.run([*found["e2fsck"], "-V"], capture_output=True, text=True, check=True)
    print(banner.stderr.splitlines()[0])
    for command in found.values():
        print(" ".join(command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
