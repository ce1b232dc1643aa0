"""Puts files into an image that is finished, whoever made it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layermelt import inject, settings
from layermelt.errors import InjectionTimeoutError, InvalidOptionError
from layermelt.job import Limit
from layermelt.options import InjectedFile, Progress, StrPath, agent_file, injection

__all__ = ["InjectionReport", "inject_files"]


@dataclass(frozen=True)
class InjectionReport:
    """What was put into an image.

    Attributes:
        path: The image.
        injector: What put the files in.
        files: Their paths in the image, in the order in which they were put in.
        seconds: How long it took.
    """

    path: Path
    injector: str
    files: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "path": os.fspath(self.path), "files": list(self.files)}


def inject_files(
    image: StrPath,
    *,
    agent: StrPath | InjectedFile | None = None,
    files: Sequence[InjectedFile] = (),
    injector: str = "mount",
    agent_check: bool = True,
    busybox: StrPath | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> InjectionReport:
    """Puts files into a finished ext4 image, in place.

    Each file appears in the image whole or not at all, and is read back. When one of several
    fails, those before it are in the image.

    Args:
        image: An image file that nothing else uses. Symlinks are followed.
        agent: The program to put at ``/sbin/vm-agent``, 0755 and root's, or another file. It
            goes in last.
        files: Further files.
        injector: ``"mount"``, or one that was registered (`layermelt.inject`).
        agent_check: Whether to see first that the image can run the agent: it is of the image's
            architecture, and static or its interpreter exists in the image.
        busybox: Path of busybox; `None`: what ``LAYERMELT_BUSYBOX`` names, else the one on PATH.
        timeout: Seconds that all of it may take.
        progress: Called some 20 times a second with (phase, files put in, files in all). What it
            raises ends the work and is raised here.

    Raises:
        InjectionError: One of its subclasses, by what went wrong.
        LayermeltError: The image or a file cannot be read, or an argument cannot be.
    """
    path = os.fsdecode(image)
    if not path or "\0" in path:
        raise InvalidOptionError(f"invalid image {path!r}: expected the path of a file")
    wanted = [(injection(file, "file"), False) for file in files]
    if agent is not None:
        wanted.append((injection(agent_file(agent), "agent"), agent_check))
    if not wanted:
        raise InvalidOptionError("there is nothing to put in; give an agent or a file")
    named = settings.busybox() if busybox is None else os.fsdecode(busybox)
    tool = inject.find_injector(injector, busybox=named or None)
    Limit(timeout)  # that it is one
    begin = time.monotonic()
    for number, ((content, destination, mode, uid, gid), check) in enumerate(wanted):
        left = None if timeout is None else timeout - (time.monotonic() - begin)
        if left is not None and left <= 0:
            raise InjectionTimeoutError(
                f"{path}: to put files into it took longer than {timeout:g} s; {os.fsdecode(destination)} and "
                "what was to follow is not in it",
                path=path,
            )
        tool.inject(
            path,
            content,
            destination,
            mode=mode,
            uid=uid,
            gid=gid,
            check=check,
            timeout=left,
            should_stop=None
            if progress is None
            else functools.partial(progress, "inject", number, len(wanted)),
        )
    return InjectionReport(
        path=Path(path),
        injector=tool.name,
        files=tuple(os.fsdecode(destination) for (_, destination, *_), _ in wanted),
        seconds=time.monotonic() - begin,
    )
