"""Package files from the Debian archive that the machine itself uses.

apt is run with state, lists and cache in a folder of ours: the machine's own
apt configuration (sources, keys, proxies) is read, nothing of it is changed,
and no privilege is needed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Package lists older than this are fetched anew.
LISTS_MAX_AGE_SECONDS = 24 * 3600


class AptError(RuntimeError):
    """apt could not do what was asked; the message says what and why."""


@dataclass(frozen=True)
class Candidate:
    """One version of one package as the archive offers it."""

    package: str
    version: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """What `apt-get download` takes."""
        return f"{self.package}={self.version}"


def missing_tools() -> list[str]:
    """The programs this module needs and the machine lacks."""
    return [tool for tool in ("apt-get", "apt-cache", "dpkg-deb", "tar") if not shutil.which(tool)]


class Archive:
    """The archive, seen through a private apt state below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._packages = self._folder / "packages"
        for sub in ("lists/partial", "cache/archives/partial", "packages"):
            (self._folder / sub).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()

    def _options(self) -> list[str]:
        return [
            f"-oDir::State={self._folder}",
            f"-oDir::State::lists={self._folder}/lists",
            f"-oDir::State::status={self._folder}/status",
            f"-oDir::Cache={self._folder}/cache",
            # As root apt drops to the user _apt, who may not read our folder.
            "-oAPT::Sandbox::User=",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=3",
        ]

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [program, *self._options(), *arguments]
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
        if done.returncode != 0:
            shown = " ".join([program, *arguments])
            raise AptError(f"{shown}: exit status {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def update(self) -> None:
        """Fetches the package lists unless they are fresh."""
        stamp = self._folder / "lists-fetched"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_MAX_AGE_SECONDS:
            return
        self._run("apt-get", "update", "-qq")
        stamp.touch()

    def candidates(self, packages: Sequence[str]) -> dict[str, list[Candidate]]:
        """Every version of each of `packages` on offer, oldest first."""
        if not packages:
            return {}
        text = self._run("apt-cache", "show", "--all-versions", *packages)
        found: dict[str, dict[str, Candidate]] = {}
        for record in _records(text):
            one = Candidate(record["Package"], record["Version"], record["SHA256"], int(record["Size"]))
            found.setdefault(one.package, {})[one.version] = one
        absent = [package for package in packages if package not in found]
        if absent:
            raise AptError(f"the archive has no package {', '.join(absent)}")
        return {package: _by_age(found[package].values()) for package in packages}

    def packages_of_priority(self, priorities: Iterable[str]) -> list[str]:
        """The names of all packages with one of these priorities, sorted."""
        wanted = set(priorities)
        text = self._run("apt-cache", "dumpavail")
        return sorted({record["Package"] for record in _records(text) if record.get("Priority") in wanted})

    def resolve(self, packages: Sequence[str]) -> list[str]:
        """`packages` and all they depend on, as apt would install them on nothing."""
        text = self._run("apt-get", "install", "--simulate", "-q", "--no-install-recommends", *packages)
        return [line.split()[1] for line in text.splitlines() if line.startswith("Inst ")]

    def fetch(self, wanted: Sequence[Candidate]) -> dict[Candidate, Path]:
        """The package files of `wanted`, fetched where we do not have them yet."""
        missing = [one for one in wanted if not self._have(one)]
        if missing:
            scratch = self._packages / f"fetch-{os.getpid()}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            try:
                self._run("apt-get", "download", "-q", *(one.name for one in missing), cwd=scratch)
                by_digest = {one.sha256: one for one in missing}
                for file in scratch.iterdir():
                    one = by_digest.get(_sha256(file))
                    if one is not None:
                        file.rename(self._path(one))
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        for one in wanted:
            if not self._have(one):
                raise AptError(f"{one.name} was fetched with another digest than {one.sha256}")
        return {one: self._path(one) for one in wanted}

    def _path(self, one: Candidate) -> Path:
        return self._packages / f"{one.package}-{one.sha256}.deb"

    def _have(self, one: Candidate) -> bool:
        path = self._path(one)
        return path.exists() and path.stat().st_size == one.size


def _records(text: str) -> Iterable[dict[str, str]]:
    """The stanzas of a Debian control file; continuation lines are dropped."""
    record: dict[str, str] = {}
    for line in text.splitlines():
        if not line:
            if record:
                yield record
            record = {}
        elif not line.startswith((" ", "\t")):
            key, _, value = line.partition(":")
            record[key] = value.strip()
    if record:
        yield record


def _by_age(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sorted by Debian's own order of versions, oldest first."""

    def compare(a: Candidate, b: Candidate) -> int:
        older = ["dpkg", "--compare-versions", a.version, "lt", b.version]
        if subprocess.run(older, check=False).returncode == 0:
            return -1
        return int(a.version != b.version)

    return sorted(candidates, key=functools.cmp_to_key(compare))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
