"""What tells whether an image would be the same: the keys of the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layermelt import _core, digests
from layermelt.errors import LayerChangedError
from layermelt.options import SHAPE

if TYPE_CHECKING:
    from layermelt.job import Job, Way

__all__ = ["Identity", "Memory", "demand_unchanged", "identify"]

#: Another form of the key is another context.
_CONTEXT = b"layermelt 2026-11 image"
#: While a file's ctime is as young as this, it may be written to again without getting another
#: one: file systems take it from a clock that ticks every few ms, some keep seconds only.
_SETTLED_NS = 2_000_000_000
_HEX = re.compile(rb"[0-9a-f]{64}\n")


@dataclass(frozen=True)
class Identity:
    """What an image is made from.

    Attributes:
        key: The key of the cache's entry: 64 hex digits.
        layers: The layers' fingerprints by stat, base first.
        files: The digests of the files that are put in.
    """

    key: str
    layers: tuple[bytes, ...]
    files: tuple[str, ...]


class Memory:
    """Remembers layers' digests by their fingerprints, so that data is read once.

    Each is a small file in a directory of the cache. What is missing or damaged is made anew;
    nothing here is an error.

    Args:
        directory: The directory; it is made when there is something to remember.
    """

    _MOST = 4096

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def recall(self, fingerprint: bytes) -> bytes | None:
        """The digest of the layer that had that fingerprint."""
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with open(os.open(self._path(fingerprint), flags), "rb") as file:
                status = os.fstat(file.fileno())
                # As of entries: who may write into the cache of somebody else could leave any digest.
                if stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid()):
                    text = file.read(66)
                    if _HEX.fullmatch(text):
                        return bytes.fromhex(text.decode())
        return None

    def remember(self, fingerprint: bytes, digest: bytes) -> None:
        """Keeps the digest for later."""
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self._prune()
            temporary = os.path.join(self._directory, f".{secrets.token_hex(8)}.tmp")
            try:
                with open(temporary, "xb") as file:
                    file.write(digest.hex().encode() + b"\n")
                os.replace(temporary, self._path(fingerprint))
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise

    def _path(self, fingerprint: bytes) -> str:
        return os.path.join(self._directory, fingerprint.hex())

    def _prune(self) -> None:
        """Forgets the older half when there are too many."""
        with os.scandir(self._directory) as entries:
            known = [(entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in entries]
        if len(known) >= self._MOST:
            for _, path in sorted(known)[: self._MOST // 2]:
                with contextlib.suppress(OSError):
                    os.unlink(path)


def identify(way: Way, job: Job, kind: str, memory: Memory | None = None) -> Identity:
    """The key of the image that this way would make of this job.

    Args:
        way: How it would be made.
        job: What it would be made from.
        kind: ``"content"``: of the layers' entries and data; ``"stat"``: of what the file system
            says of them.
        memory: Knows layers that were read before.
    """
    layers = _fingerprints(job)
    if kind == "content":
        options = {"userxattr": job.options["userxattr"], "fuse_overlayfs": job.chain.fuse_overlayfs}
        digest = _core.chain_of(
            [_layer_digest(job, layer, found, memory) for layer, found in layers], **options
        )
    else:
        digest = b"".join(found.digest for _, found in layers)
    files = _file_digests(job)
    told = {
        "kind": kind,
        "epoch": _core.FORMAT_EPOCH,
        "chain": digest.hex(),
        "marks": [bool(job.options["userxattr"]), bool(job.chain.fuse_overlayfs)],
        "files": [
            [destination.hex(), mode, uid, gid, content]
            for (_, destination, mode, uid, gid), content in zip(job.options["files"], files, strict=True)
        ],
        "shape": {name: _plain(job.options[name]) for name in SHAPE},
        "timestamp": job.options["timestamp"],
        # An image whose agent nobody looked at is not for those who want it looked at.
        "check_agent": job.options["check_agent"],
        "way": way.identity(),
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    key = hashlib.blake2b(text, digest_size=32, key=_CONTEXT).hexdigest()
    return Identity(key=key, layers=tuple(found.digest for _, found in layers), files=files)


def demand_unchanged(identity: Identity, job: Job) -> None:
    """Sees that what an image was made from is still what its key says.

    Raises:
        LayerChangedError: Something was written to since.
    """
    for (layer, now), before in zip(_fingerprints(job), identity.layers, strict=True):
        if now.digest != before:
            raise LayerChangedError(
                f"{layer}: something wrote to this layer during the build; build again when nothing does",
                path=layer,
            )
    for (content, *_), now_, before_ in zip(
        job.options["files"], _file_digests(job), identity.files, strict=True
    ):
        if now_ != before_:
            raise LayerChangedError(
                f"{content}: something wrote to this file during the build; build again when nothing does",
                path=content if isinstance(content, str) else None,
            )


@dataclass(frozen=True)
class _Found:
    """A layer's fingerprint; `settled`: whatever is written from now on will change it."""

    digest: bytes
    settled: bool


def _fingerprints(job: Job) -> list[tuple[str, _Found]]:
    found = []
    for layer in job.chain.paths():
        now = time.time_ns()
        digest, newest = _core.layer_fingerprint(
            layer,
            threads=job.options["threads"],
            progress=job.options["progress"],
            inode_flags=job.options["inode_flags"],
        )
        found.append((layer, _Found(digest, newest is None or newest < now - _SETTLED_NS)))
    return found


def _layer_digest(job: Job, layer: str, found: _Found, memory: Memory | None) -> bytes:
    known = None if memory is None else memory.recall(found.digest)
    if known is not None:
        return known
    digest = _core.layer_digest(
        layer,
        threads=job.options["threads"],
        progress=job.options["progress"],
        inode_flags=job.options["inode_flags"],
    )
    if memory is not None and found.settled:
        memory.remember(found.digest, digest)
    return digest


def _file_digests(job: Job) -> tuple[str, ...]:
    threads = job.options["threads"] or None
    return tuple(
        hashlib.blake2b(content, digest_size=32).hexdigest()
        if isinstance(content, bytes)
        else digests.file_digest(content, threads=threads, progress=job.options["progress"])
        for content, *_ in job.options["files"]
    )


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
