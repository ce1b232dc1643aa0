"""A containerd of our own, started for a test as Docker starts its, and images for it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60
STOP_SECONDS = 30
NAMESPACE = "moby"
#: What a store of images needs; the others look for devices and networks.
CONFIG = """\
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing"]
"""


def missing() -> str | None:
    """What is not there to run containerd with, or None."""
    if os.geteuid() != 0:
        return "root: containerd mounts overlayfs"
    lacking = [program for program in ("containerd", "ctr") if shutil.which(program) is None]
    return f"{' and '.join(lacking)} (Debian: containerd)" if lacking else None


@dataclass
class Containerd:
    """One daemon, with its store where Docker's own containerd has it."""

    folder: Path

    @property
    def docker_root(self) -> Path:
        """What `--docker-root` takes."""
        return self.folder / "docker"

    @property
    def root(self) -> Path:
        """Where the store is."""
        return self.docker_root / "containerd/daemon"

    def ctr(self, *arguments: str | Path, check: bool = True) -> str:
        """What the client says."""
        command = ["ctr", "--address", str(self.folder / "socket"), "--namespace", NAMESPACE]
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"ctr {shlex.join(map(str, arguments))}: {done.stdout}\n{done.stderr}")
        return done.stdout

    def load(self, archive: Path, *more: str) -> None:
        """Imports an OCI archive, and unpacks it unless told otherwise."""
        self.ctr("images", "import", *more, archive)

    @contextlib.contextmanager
    def mounted(self, chain: str, target: Path) -> Iterator[Path]:
        """The snapshot of that chain id, as containerd has the kernel mount it."""
        self.ctr("snapshots", "view", "looked-at", chain)
        target.mkdir()
        try:
            # What it prints is a command for a shell.
            mount = self.ctr("snapshots", "mounts", target, "looked-at")
            subprocess.run(shlex.split(mount), check=True)
            try:
                yield target
            finally:
                subprocess.run(["umount", target], check=True)
        finally:
            self.ctr("snapshots", "rm", "looked-at")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Containerd]:
    """A daemon that answers; it is ended with the block."""
    daemon = Containerd(folder)
    daemon.docker_root.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG)
    places = {"config": folder / "config.toml", "root": daemon.root, "state": folder / "state"}
    command = ["containerd", *(f"--{name}={path}" for name, path in places.items())]
    command.append(f"--address={folder / 'socket'}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not daemon.ctr("version", check=False):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not answer:\n{(folder / 'log').read_text()[-3000:]}")
            time.sleep(0.1)
        yield daemon
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Archive:
    """An OCI archive with one image, of a manifest for each of some platforms."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: list[dict[str, Any]] = []

    def add(self, content: bytes) -> dict[str, Any]:
        """Stores a blob; returns what names it."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._blobs[digest] = content
        return {"digest": digest, "size": len(content)}

    def add_manifest(self, architecture: str, layers: Sequence[bytes]) -> list[str]:
        """A manifest with these layers (tars, base first); returns their diff ids."""
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        platform = {"os": "linux", "architecture": architecture}
        config = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        image = "application/vnd.oci.image"
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{image}.manifest.v1+json",
            "config": {
                "mediaType": f"{image}.config.v1+json",
                **self.add(json.dumps(config).encode()),
            },
            "layers": [
                {"mediaType": f"{image}.layer.v1.tar+gzip", **self.add(gzip.compress(layer, mtime=0))}
                for layer in layers
            ],
        }
        named = {"mediaType": f"{image}.manifest.v1+json", **self.add(json.dumps(manifest).encode())}
        self._manifests.append({**named, "platform": platform})
        return diff_ids

    def write(self, path: Path, name: str) -> None:
        """The archive, with the index of all manifests as `name`."""
        kind = "application/vnd.oci.image.index.v1+json"
        index = {"schemaVersion": 2, "mediaType": kind, "manifests": self._manifests}
        named = {"mediaType": kind, **self.add(json.dumps(index).encode())}
        named["annotations"] = {"io.containerd.image.name": name}
        files = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(),
            **{f"blobs/{digest.replace(':', '/')}": content for digest, content in self._blobs.items()},
        }
        with tarfile.open(path, "w") as archive:
            for member, content in files.items():
                header = tarfile.TarInfo(member)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))


def tar_of(folder: Path) -> bytes:
    """A layer: all that is in a folder, names that begin with .wh. among it."""
    command = ["tar", "--create", "--xattrs", "--numeric-owner", "--sort=name", "-C", str(folder), "."]
    return subprocess.run(command, check=True, capture_output=True).stdout
