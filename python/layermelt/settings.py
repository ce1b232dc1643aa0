"""Defaults, limits and the reading of values that users write."""

from __future__ import annotations

import os
import re

from layermelt.errors import InvalidOptionError

__all__ = [
    "AGENT_DESTINATION",
    "AGENT_MODE",
    "DEFAULT_DOCKER_ROOT",
    "DEFAULT_FREE_SPACE",
    "MAX_LABEL",
    "MAX_LAYERS",
    "default_docker_root",
    "parse_mode",
    "parse_size",
    "source_date_epoch",
]

#: Where the agent goes unless told otherwise; it is started as ``init=/sbin/vm-agent``.
AGENT_DESTINATION = "/sbin/vm-agent"
AGENT_MODE = 0o755
#: Where dockerd keeps its data unless told otherwise.
DEFAULT_DOCKER_ROOT = "/var/lib/docker"
#: Bytes that are free in an image with ``size="auto"``; they are holes in its file.
DEFAULT_FREE_SPACE = 256 << 20
#: Length of ``s_volume_name``.
MAX_LABEL = 16
#: The kernel's overlayfs takes as many lower layers (``OVL_MAX_STACK``).
MAX_LAYERS = 500

_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,20})(?:([KMGT])(?:iB|B)?|B)?", re.ASCII | re.IGNORECASE)
_MODE = re.compile(r"(?:0o)?([0-7]{1,5})", re.ASCII)
#: The kernel's file sizes and offsets are signed 64-bit numbers.
_MAX_BYTES = (1 << 63) - 1


def default_docker_root() -> str:
    """The data root of Docker that is meant when none is named."""
    return os.environ.get("LAYERMELT_DOCKER_ROOT") or DEFAULT_DOCKER_ROOT


def parse_size(value: int | str, option: str) -> int:
    """A number of bytes, written as a number or with a binary suffix such as ``2G``."""
    number = value
    if isinstance(number, str):
        match = _SIZE.fullmatch(number.strip())
        if match is None:
            raise InvalidOptionError(
                f"invalid {option} {value!r}: expected a number of bytes, or one with K, M, G or T"
            )
        number = int(match[1]) * _SUFFIXES[(match[2] or "").upper()]
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidOptionError(f"invalid {option} {value!r}: expected a number of bytes")
    if not 0 <= number <= _MAX_BYTES:
        raise InvalidOptionError(f"invalid {option} {value!r}: expected 0 to 2^63-1 bytes")
    return number


def parse_mode(value: int | str, option: str) -> int:
    """Permission bits, as a number or as octal digits."""
    mode = value
    if isinstance(mode, str):
        match = _MODE.fullmatch(mode)
        if match is None:
            raise InvalidOptionError(f"invalid {option} {value!r}: expected octal digits such as 0644")
        mode = int(match[1], 8)
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o7777:
        raise InvalidOptionError(f"invalid {option} {value!r}: expected 0 to 07777")
    return mode


def source_date_epoch() -> int | None:
    """``SOURCE_DATE_EPOCH``, as https://reproducible-builds.org/specs/source-date-epoch/ has it."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise InvalidOptionError(
            f"invalid SOURCE_DATE_EPOCH {text!r}: expected seconds since 1970 as a decimal number; "
            "correct the environment variable or unset it"
        )
    return int(text)
