"""Makes the chain that the benchmarks build: real Debian packages in six layers.

About 60,000 entries and 1 GB merged out of 1.3 GB: a base system, language
runtimes, a compiler, big source trees, an upgrade with deletions, an
application. Security upgrades, a purge, deleted and replaced directories lie
between the layers, in Docker's `overlay2` form.

`chain.lock.json` names every package file by version and SHA-256, so that
two machines make the same chain. Debian's mirrors drop old versions in time:
what is gone is replaced by what is there, and the manifest says so (`drift`).

    python benches/chain.py FOLDER            make it (or find it made)
    python benches/chain.py FOLDER --relock   choose the versions anew
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from integration.real import apt, store  # noqa: E402 (the path above comes first)

LOCK = HERE / "chain.lock.json"

#: What each layer installs (with all it depends on) beyond the layers below.
RUNTIMES = ["python3", "perl", "git", "locales", "vim", "openssl", "python3-pip", "python3-numpy"]
NETWORK = ["iputils-ping"]
COMPILER = ["gcc", "g++", "make", "libssl-dev", "python3-dev", "pkg-config"]
#: Taken without what they depend on (`DATA` too): trees of many small files.
SOURCES = ["libboost1.74-dev", "golang-1.19-src", "oxygen-icon-theme", "libpython3.11-testsuite"]
APPLICATION = ["nodejs", "python3-pygments", "python3-django", "fonts-dejavu-core"]
DATA = ["ruby3.1-doc"]
#: What the package's script gives to `ping`.
CAP_NET_RAW = 1 << 13
#: Installed by `sources`, gone again two layers higher.
PURGED = ["golang-1.19-src"]


@dataclass(frozen=True)
class Made:
    """A chain on disk and what is known of it."""

    root: Path
    manifest: dict[str, Any]

    @property
    def top(self) -> Path:
        """The chain directory, as `layermelt build` takes it."""
        return self.root / "overlay2" / str(self.manifest["top"])

    @property
    def diffs(self) -> list[Path]:
        """The layers' trees, base first."""
        return [self.root / "overlay2" / name / "diff" for name in self.manifest["layers"]]


def choose(archive: apt.Archive) -> dict[str, list[apt.Candidate]]:
    """The package versions of each layer: old below, the newest in the upgrade."""
    base = archive.resolve(archive.packages_of_priority(["required"]))
    seen = set(base)

    def beyond(packages: list[str]) -> list[str]:
        new = [name for name in archive.resolve(packages) if name not in seen]
        seen.update(new)
        return new

    named = {
        "base": base,
        "runtimes": beyond(RUNTIMES + NETWORK),
        "compiler": beyond(COMPILER),
        "sources": SOURCES,
        "application": beyond(APPLICATION) + DATA,
    }
    every = archive.candidates(sorted({name for names in named.values() for name in names}))
    chosen = {layer: [every[name][0] for name in names] for layer, names in named.items()}
    chosen["application"] = [every[name][-1] for name in named["application"]]
    chosen["upgrade"] = [
        every[name][-1]
        for layer in ("base", "runtimes", "compiler")
        for name in named[layer]
        if len(every[name]) > 1
    ]
    return chosen


def locked(archive: apt.Archive) -> tuple[dict[str, list[apt.Candidate]], list[str]]:
    """The versions of the lock, and a line for each that the archive no longer has."""
    lock = json.loads(LOCK.read_text())
    wanted = {layer: [apt.Candidate(**record) for record in records] for layer, records in lock.items()}
    every = archive.candidates(sorted({one.package for ones in wanted.values() for one in ones}))
    drift = []
    for layer, ones in wanted.items():
        for place, one in enumerate(ones):
            if one not in every[one.package]:
                ones[place] = every[one.package][-1 if layer in ("upgrade", "application") else 0]
                drift.append(f"{layer}: {one.name} is gone, {ones[place].version} taken")
    return wanted, drift


def make(folder: Path, relock: bool = False) -> Made:
    """Makes the chain below `folder`, or finds it made."""
    root = folder / "docker"
    manifest_path = folder / "chain.json"
    recipe = digest_of_recipe()
    if manifest_path.exists() and not relock:
        manifest = json.loads(manifest_path.read_text())
        if manifest["recipe"] == recipe:
            return Made(root, manifest)
    lacking = apt.missing_tools()
    if lacking:
        raise SystemExit(f"the chain is made of Debian packages: {', '.join(lacking)} missing")
    archive = apt.Archive(folder / "apt")
    archive.update()
    drift: list[str] = []
    if relock or not LOCK.exists():
        chosen = choose(archive)
        write_lock(chosen)
        recipe = digest_of_recipe()  # the lock is part of it
    else:
        chosen, drift = locked(archive)
    files = archive.fetch([one for ones in chosen.values() for one in ones])
    manifest_path.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    maker = store.ChainMaker(root, store.probe_marks(folder))
    melt(maker, chosen, files)
    manifest = {
        "recipe": recipe,
        "top": maker.top.name,
        "layers": [layer.directory.name for layer in maker.layers],
        "userxattr": maker.marks.userxattr,
        "entries": maker.entries,
        "deletions": [layer.deletions for layer in maker.layers],
        "layer_bytes": [tree_bytes(diff) for diff in maker.diffs],
        "packages": {layer: [one.name for one in ones] for layer, ones in chosen.items()},
        "drift": drift,
    }
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")
    return Made(root, manifest)


def digest_of_recipe() -> str:
    """Tells whether a chain on disk is the one that would be made now."""
    parts = [Path(__file__), Path(store.__file__), LOCK]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts if part.exists())).hexdigest()


def melt(
    maker: store.ChainMaker,
    chosen: dict[str, list[apt.Candidate]],
    files: dict[apt.Candidate, Path],
) -> None:
    """Writes the six layers."""

    def install(layer: str) -> None:
        for one in chosen[layer]:
            maker.install(one.package, files[one])

    with maker.layer("base"):
        maker.merged_usr()
        install("base")
    with maker.layer("runtimes"):
        install("runtimes")
        if os.geteuid() == 0:
            maker.capability("usr/bin/ping", CAP_NET_RAW)
    with maker.layer("compiler"):
        install("compiler")
    with maker.layer("sources"):
        install("sources")
    with maker.layer("upgrade and clean"):
        install("upgrade")
        for package in PURGED:
            maker.purge(package)
        # As image authors do: no manual pages, no changelogs, empty caches.
        maker.clear("usr/share/man")
        maker.clear("var/cache")
        maker.remove("usr/share/locale")
        maker.remove("usr/share/info")
    with maker.layer("application"):
        install("application")
        maker.write("etc/hostname", b"melted\n")
        maker.write("srv/app/config.json", b'{"listen": 8080}\n', 0o640)
        maker.hard_link("srv/app/config.json", "srv/app/config.json.orig")
        maker.symlink("srv/app/current", ".")


def write_lock(chosen: dict[str, list[apt.Candidate]]) -> None:
    """Writes `chain.lock.json`, a line for each package."""
    layers = []
    for layer, ones in chosen.items():
        rows = ",\n".join("  " + json.dumps(vars(one)) for one in ones)
        layers.append(f' "{layer}": [\n{rows}\n ]')
    LOCK.write_text("{\n" + ",\n".join(layers) + "\n}\n")


def tree_bytes(top: Path) -> int:
    """Bytes in the regular files below `top`, a hard-linked one counted once."""
    seen = set()
    total = 0
    for folder, _, names in os.walk(os.fsencode(top)):
        for name in names:
            info = os.lstat(os.path.join(folder, name))
            if info.st_ino not in seen:
                seen.add(info.st_ino)
                total += info.st_size if (info.st_mode & 0o170000) == 0o100000 else 0
    return total


def main() -> None:
    """Makes the chain and says what it is."""
    parser = argparse.ArgumentParser(description="make the chain of the benchmarks")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--relock", action="store_true", help="choose the versions anew")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    made = make(arguments.folder.resolve(), arguments.relock)
    megabytes = sum(made.manifest["layer_bytes"]) / 1e6
    print(f"{made.top}")
    print(
        f"{len(made.diffs)} layers, {megabytes:.0f} MB, {made.manifest['entries']} entries merged",
        file=sys.stderr,
    )
    for line in made.manifest["drift"]:
        print(f"drift: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
