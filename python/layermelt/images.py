"""What can be said of an image that exists."""

from __future__ import annotations

import os
import uuid as _uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

from layermelt import _core
from layermelt.options import Progress, StrPath

__all__ = ["ImageReport", "Problem", "check_image", "grave_problems", "has_ext4_magic"]

#: What a check may find that neither the kernel nor a guest minds: e2fsck would put it right, or
#: the first mount does. All else means that the image is not to be used.
_HARMLESS = frozenset(
    {
        "bitmap-padding",
        "free-blocks",
        "free-inodes",
        "group-flags",
        "needs-recovery",
        "no-journal",
        "not-clean",
    }
)


class Problem(NamedTuple):
    """Something that is wrong with an image.

    Attributes:
        code: What kind of fault it is, for machines: ``bad-magic``, ``group-checksum``.
        text: A sentence with the place and the numbers.
    """

    code: str
    text: str


@dataclass(frozen=True)
class ImageReport:
    """What an image says about itself, and what is wrong with it.

    Attributes:
        path: The image.
        size: Size of the file or device in bytes.
        problems: What is wrong, empty for a sound image; at most 100.
        more_problems: How many further problems there are.
        uuid: The file system's UUID.
        label: The file system's label.
        block_size: Bytes of a block.
        blocks: Blocks of the file system.
        free_blocks: Free ones of them.
        inodes: Inodes of the file system.
        free_inodes: Free ones of them.
        inode_size: Bytes of an inode.
        groups: Block groups.
        features: The features by their names in ``dumpe2fs``.
        journal: ``none``, ``inode N``, or ``device UUID``.
        state: ``clean``, or what is not.
        deep: Whether every inode, directory, bitmap and quota was looked at.
        notes: What is there but was not looked at, in words; no problem.
    """

    path: str
    size: int
    problems: tuple[Problem, ...]
    more_problems: int
    uuid: str
    label: str
    block_size: int
    blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int
    inode_size: int
    groups: int
    features: tuple[str, ...]
    journal: str
    state: str
    deep: bool = False
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "sound": self.sound,
            "size": self.size,
            "problems": [problem._asdict() for problem in self.problems],
            "more_problems": self.more_problems,
            "uuid": self.uuid,
            "label": self.label,
            "block_size": self.block_size,
            "blocks": self.blocks,
            "free_blocks": self.free_blocks,
            "inodes": self.inodes,
            "free_inodes": self.free_inodes,
            "inode_size": self.inode_size,
            "groups": self.groups,
            "features": list(self.features),
            "journal": self.journal,
            "state": self.state,
            "deep": self.deep,
            "notes": list(self.notes),
        }


def has_ext4_magic(path: StrPath) -> bool:
    """Whether a file or block device has ext4's magic number where ext2, ext3 and ext4 have it.

    `False` for whatever is missing, short, unreadable or something else: never an error.
    """
    return _core.has_ext4_magic(os.fsdecode(path))


def check_image(path: StrPath, *, deep: bool = False, progress: Progress | None = None) -> ImageReport:
    """Whether a file or block device is a sound ext4: what is wrong is in the report.

    It compares the magic number, the checksums of the superblock, of every group's descriptor
    and bitmaps and of the root directory's inode, the free counts and the geometry against the
    file's size, in milliseconds. With `deep` it goes through every inode, extent tree, attribute,
    directory, bitmap and quota, and finds what ``e2fsck -fn`` finds; files' data has no checksums. Images
    may be anyone's. A journal that is still to be replayed is a problem, ``needs-recovery``; with
    `deep` it is replayed in memory, and what else is told is of the state behind it.

    Args:
        path: The image.
        deep: Look at all of it.
        progress: Called every 50 ms with the phase, and units of it done and in all: ``scan``
            (unknown, 0), ``inodes`` and ``bitmaps`` (units are block groups), ``directories``,
            ``links`` (unknown, 0). What it raises ends the check.

    Raises:
        ImageNotFoundError: There is no such file.
        UnreadableError: There is no permission to read it.
        ImageError: It is neither a regular file nor a block device, or reading it failed.
    """
    named = os.fsdecode(path)
    report = _core.check_image(named, deep=deep, progress=progress)
    kind, _, device = report.journal.partition(" ")
    return ImageReport(
        path=named,
        size=report.size,
        problems=tuple(Problem(problem.code, problem.text) for problem in report.problems),
        more_problems=report.more_problems,
        uuid=str(_uuid.UUID(bytes=report.uuid)),
        label=os.fsdecode(report.label),
        block_size=report.block_size,
        blocks=report.blocks,
        free_blocks=report.free_blocks,
        inodes=report.inodes,
        free_inodes=report.free_inodes,
        inode_size=report.inode_size,
        groups=report.groups,
        features=tuple(report.features),
        journal=f"device {_uuid.UUID(device)}" if kind == "device" else report.journal,
        state=report.state,
        deep=deep,
        notes=tuple(report.notes),
    )


def grave_problems(report: ImageReport) -> tuple[Problem, ...]:
    """What is wrong with an image so that it is not to be used."""
    return tuple(problem for problem in report.problems if problem.code not in _HARMLESS)
