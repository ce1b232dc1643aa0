"""Images that were built before: ``rootfs-<key>.ext4`` in a directory.

Older agents keep their images under the same names in the same directory, so either takes
the other's. One builder works for a key at a time, across threads and processes; the others
wait for its image. An entry appears whole or not at all, and is a read-only file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import stat
import uuid as _uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from layermelt import log
from layermelt.errors import LayermeltError, OutputError, OutputNotFoundError, from_os_error
from layermelt.identity import Memory, demand_unchanged, identify
from layermelt.images import ImageReport, check_image, grave_problems, has_ext4_magic
from layermelt.job import Job, Way, finish
from layermelt.locks import exclusive
from layermelt.publish import Publication, absolute
from layermelt.results import BuildResult, image_result

__all__ = ["Cache", "CacheNames", "Hit", "build_cached", "build_entry"]

#: Entries are for reading: who wants to write to one makes a clone.
_ENTRY_MODE = 0o444


class CacheNames:
    """The temporary files' names: ``.rootfs-<uuid4>.ext4.tmp``, as older agents name theirs.

    They are swept when nobody holds their lock, and older agents know nothing of locks: so the
    last digits of ours are a checksum of the others, and only such names are taken for ours. So
    are the files that builders of a key lock, of builders that were killed.
    """

    _NAME = re.compile(r"\.rootfs-([0-9a-f-]{36})\.ext4\.tmp", re.ASCII)
    _LOCK = re.compile(r"\.rootfs-(?:[0-9a-f]{16}|[0-9a-f]{64})\.lock", re.ASCII)

    def make(self) -> str:
        """See `layermelt.publish.TemporaryNames`."""
        digits = _uuid.uuid4().hex[:24]
        return f".rootfs-{_uuid.UUID(digits + self._mark(digits))}.ext4.tmp"

    def matches(self, name: str) -> bool:
        """See `layermelt.publish.TemporaryNames`."""
        if self._LOCK.fullmatch(name):
            return True
        match = self._NAME.fullmatch(name)
        digits = "" if match is None else match[1].replace("-", "")
        return len(digits) == 32 and digits[24:] == self._mark(digits[:24])

    @staticmethod
    def _mark(digits: str) -> str:
        return hashlib.blake2b(digits.encode(), digest_size=4, key=b"layermelt temporary file").hexdigest()


@dataclass(frozen=True)
class Hit:
    """An entry that can be used.

    Attributes:
        path: The image.
        report: What it says about itself, if it was asked.
        allocated: Bytes that it takes of the disk.
    """

    path: str
    report: ImageReport | None
    allocated: int


class Cache:
    """A directory of images.

    Args:
        directory: It is made when it is missing, for its owner alone.

    Raises:
        OutputError: It cannot be made, or is no directory.
    """

    def __init__(self, directory: str | bytes | os.PathLike[str]) -> None:
        named = os.fsdecode(directory)
        if not named or "\0" in named:
            raise OutputError(f"invalid cache directory {named!r}: expected a path")
        self.directory = os.path.normpath(absolute(named))
        try:
            # Images hold what their users keep from others, such as /etc/shadow.
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        except OSError as error:
            if os.path.lexists(self.directory) and not os.path.isdir(self.directory):
                raise OutputNotFoundError(
                    f"{self.directory}: not a directory; choose another cache directory", path=self.directory
                ) from None
            raise from_os_error(
                "output",
                f"cannot make the cache directory {self.directory}: {error.strerror}",
                self.directory,
                error.errno,
            ) from None

    def entry(self, key: str) -> str:
        """The path of a key's image, be it there or not."""
        return os.path.join(self.directory, f"rootfs-{key}.ext4")

    def memory(self) -> Memory:
        """The layers' digests that are remembered here."""
        return Memory(os.path.join(self.directory, ".digests"))

    def look(self, key: str, *, verify: bool, strict: bool) -> tuple[Hit | None, str]:
        """The entry of that key, and what is wrong with it if it is there but not to be used.

        Args:
            key: The key.
            verify: Whether it is to be checked, or need only look like an ext4.
            strict: Whether nothing at all may be wrong with it.
        """
        path = self.entry(key)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            raise from_os_error(
                "output", f"cannot read {path}: {error.strerror}", path, error.errno
            ) from None
        if not stat.S_ISREG(status.st_mode):
            return None, "it is no regular file"
        # Who may write into somebody's cache could leave anything there.
        if status.st_uid not in (0, os.geteuid()):
            return None, f"it belongs to another user (uid {status.st_uid})"
        if not has_ext4_magic(path):
            return None, "it is no ext4"
        if not verify:
            return Hit(path, None, status.st_blocks * 512), ""
        report = check_image(path)
        problems = report.problems if strict else grave_problems(report)
        if problems:
            return None, problems[0].text
        return Hit(path, report, status.st_blocks * 512), ""

    def lock(self, key: str, wait: Callable[[], object] | None) -> AbstractContextManager[bool]:
        """Holds the only right to build that key; see `layermelt.locks.exclusive`."""
        return _lock(os.path.join(self.directory, f".rootfs-{key}.lock"), wait)

    def publication(self, key: str) -> Publication:
        """Where its image is written."""
        path = self.entry(key)
        # A publication would follow a symlink, and leave the others.
        with contextlib.suppress(FileNotFoundError):
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode):
                raise OutputError(f"{path}: is a directory in the place of an image; remove it", path=path)
            if not stat.S_ISREG(mode):
                os.unlink(path)
        return Publication(path, names=CacheNames())


def build_cached(directory: str | bytes | os.PathLike[str], way: Way, job: Job) -> BuildResult:
    """The image of a job, from the cache in that directory or built into it."""
    cache = Cache(directory)
    identity = identify(way, job, "content", cache.memory())
    job.clock.lap("key")
    return build_entry(
        cache,
        identity.key,
        way,
        job,
        verify=True,
        strict=way.engine == "native",
        before_publishing=lambda: demand_unchanged(identity, job),
    )


def build_entry(
    cache: Cache,
    key: str,
    way: Way,
    job: Job,
    *,
    verify: bool,
    strict: bool,
    before_publishing: Callable[[], object] | None = None,
    building: Callable[[], object] | None = None,
) -> BuildResult:
    """The image of that key, from the cache or built into it.

    Args:
        cache: The cache.
        key: The key.
        way: How an image is made.
        job: From what.
        verify: See `Cache.look`.
        strict: See `Cache.look`.
        before_publishing: Called when the image is made; what it raises is raised here, and
            there is no entry.
        building: Called when it is not there and is going to be built.
    """
    hit, fault = cache.look(key, verify=verify, strict=strict)
    if hit is None:
        with cache.lock(key, job.stop_check("wait")) as waited:
            if waited:
                job.clock.lap("wait")
            # Somebody else may have come to its end just before.
            hit, fault = cache.look(key, verify=verify, strict=strict)
            if hit is None:
                if building is not None:
                    building()
                return _build(cache, key, way, job, fault, before_publishing)
    report = check_image(hit.path) if hit.report is None else hit.report
    job.clock.lap("check")
    result = image_result(
        hit.path,
        report,
        source=job.chain.description,
        counts=None,
        allocated=hit.allocated,
        written=0,
        copy_method="cache",
        warnings=job.chain.warnings,
        clock=job.clock,
        engine=way.engine,
        injector=way.injector,
    )
    return dataclasses.replace(result, key=key, cached=True)


def _build(
    cache: Cache,
    key: str,
    way: Way,
    job: Job,
    fault: str,
    before_publishing: Callable[[], object] | None,
) -> BuildResult:
    warnings = []
    if fault:
        path = cache.entry(key)
        warnings.append(f"{path}: was in the cache but is not to be used ({fault}); it was built anew")
        log.warning("rebuilding a damaged rootfs", rootfs=path, fault=fault)
    with cache.publication(key) as publication:
        made = way.make(job, publication)
        if before_publishing is not None:
            before_publishing()
        made = dataclasses.replace(made, warnings=(*made.warnings, *warnings))
        result = finish(way, job, publication, made, mode=_ENTRY_MODE)
    return dataclasses.replace(result, key=key)


@contextlib.contextmanager
def _lock(path: str, wait: Callable[[], object] | None) -> Iterator[bool]:
    held = exclusive(path, wait=wait)
    try:
        waited = held.__enter__()
    except LayermeltError:
        raise  # some are an OSError
    except OSError as error:
        raise from_os_error("output", f"cannot write {path}: {error.strerror}", path, error.errno) from None
    with contextlib.ExitStack() as stack:
        stack.push(held)
        yield waited
