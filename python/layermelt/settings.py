"""Defaults, limits and the reading of values that users write."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layermelt.errors import InvalidOptionError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "AGENT_DESTINATION",
    "AGENT_MODE",
    "CACHE_VARIABLE",
    "DEFAULT_CONTAINERD_ROOT",
    "DEFAULT_DOCKER_ROOT",
    "DEFAULT_FREE_SPACE",
    "FORMER_BUSYBOX",
    "FORMER_OCI2ROOTFS",
    "IGNORABLE",
    "MAX_LABEL",
    "MAX_LAYERS",
    "NAMESPACE_VARIABLE",
    "OCI2ROOTFS_VARIABLE",
    "SYSTEM_CACHE",
    "Settings",
    "busybox",
    "default_cache_dir",
    "default_containerd_namespace",
    "default_containerd_root",
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
#: Where containerd keeps its data unless told otherwise.
DEFAULT_CONTAINERD_ROOT = "/var/lib/containerd"
#: The environment variable that names a namespace of containerd.
NAMESPACE_VARIABLE = "CONTAINERD_NAMESPACE"
#: Bytes that are free in an image with ``size="auto"``; they are holes in its file.
DEFAULT_FREE_SPACE = 256 << 20
#: Length of ``s_volume_name``.
MAX_LABEL = 16
#: The kernel's overlayfs takes as many lower layers (``OVL_MAX_STACK``).
MAX_LAYERS = 500

#: What a comparison of two trees can be told to ignore.
IGNORABLE = ("content", "links", "mode", "mtime", "owner", "xattrs")
#: The environment variable that names the program oci2rootfs.
OCI2ROOTFS_VARIABLE = "LAYERMELT_OCI2ROOTFS"
#: Where older agents keep it.
FORMER_OCI2ROOTFS = "/arcbox/bin/oci2rootfs"
#: Where older agents expect it.
FORMER_BUSYBOX = "/bin/busybox"
#: The environment variable that names the cache's directory.
CACHE_VARIABLE = "LAYERMELT_CACHE_DIR"
#: The cache of root.
SYSTEM_CACHE = "/var/cache/layermelt"

_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,20})(?:([KMGT])(?:iB|B)?|B)?", re.ASCII | re.IGNORECASE)
_MODE = re.compile(r"(?:0o)?([0-7]{1,5})", re.ASCII)
#: The kernel's file sizes and offsets are signed 64-bit numbers.
_MAX_BYTES = (1 << 63) - 1


def default_docker_root() -> str:
    """The data root of Docker that is meant when none is named."""
    return os.environ.get("LAYERMELT_DOCKER_ROOT") or DEFAULT_DOCKER_ROOT


def default_containerd_root() -> str:
    """The root directory of containerd that is meant by ``containerd:NAME``."""
    return os.environ.get("LAYERMELT_CONTAINERD_ROOT") or DEFAULT_CONTAINERD_ROOT


def default_containerd_namespace() -> str:
    """Whose images are meant by ``containerd:NAME``: as containerd's own clients have it."""
    return os.environ.get(NAMESPACE_VARIABLE) or "default"


def busybox() -> str | None:
    """Path of busybox, where one is named; else it is looked for."""
    return os.environ.get("LAYERMELT_BUSYBOX") or None


def default_cache_dir() -> str:
    """Where the cache is that is meant when none is named."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return named
    if os.geteuid() == 0:
        return SYSTEM_CACHE
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        # The specification: a relative one is invalid and is to be ignored.
        base = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        # Without HOME, of a user whom /etc/passwd does not know: not into a directory named "~".
        raise InvalidOptionError(
            f"there is no home directory to keep the cache in; set {CACHE_VARIABLE}, or give --cache-dir"
        )
    return os.path.join(base, "layermelt")


#: A setting that is not given.
_UNSET: Any = type("Unset", (), {"__repr__": lambda _self: "<unset>"})()


@dataclass(frozen=True)
class Settings:
    """How `layermelt.convert_layer_to_rootfs` works.

    Each value is the argument's, else that of the environment variable ``LAYERMELT_`` and the
    name in capitals, else the default.

    Attributes:
        cache_dir: The directory of the images.
        agent: The program that is put at ``/sbin/vm-agent``.
        oci2rootfs: The program of the engine of that name. With the default it is looked for:
            on PATH, then there.
        busybox: The program that the injector ``mount`` mounts with; the machine's own ``mount``
            where it is missing.
        engine: What makes the image: ``native``, ``oci2rootfs`` or a registered one.
        injector: What puts the agent in: ``auto``, ``plan``, ``mount`` or a registered one.
        key: What an image is named by: ``path`` (of the layer, as older agents do: what lies
            there is not looked at), ``content`` or ``stat`` (see `layermelt.build_rootfs` and
            `layermelt.digests.stat_fingerprint`).
        verify: Whether an image in the cache must be sound to be used, or need only look like
            an ext4.
        agent_check: Whether to see that the image can run the agent.
        timeout: Seconds that one conversion may take; `None`: as long as it takes.
    """

    cache_dir: str = _UNSET
    agent: str = _UNSET
    oci2rootfs: str = _UNSET
    busybox: str = _UNSET
    engine: str = _UNSET
    injector: str = _UNSET
    key: str = _UNSET
    verify: bool = _UNSET
    agent_check: bool = _UNSET
    timeout: float | None = _UNSET

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is _UNSET:
                value = _from_environment(field.name)
            object.__setattr__(self, field.name, _setting(field.name, value))

    @classmethod
    def legacy(cls, **arguments: Any) -> Self:
        """The way of older agents: an external oci2rootfs, a loop mount, named by the path."""
        return cls(**{"engine": "oci2rootfs", "injector": "mount", "key": "path", **arguments})


_DEFAULTS: dict[str, Any] = {
    "cache_dir": "/arcbox/bin",
    "agent": "/arcbox/bin/vm-agent",
    "oci2rootfs": FORMER_OCI2ROOTFS,
    "busybox": FORMER_BUSYBOX,
    "engine": "native",
    "injector": "auto",
    "key": "path",
    "verify": True,
    "agent_check": True,
    "timeout": None,
}
_KEYS = ("path", "content", "stat")
_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _from_environment(name: str) -> Any:
    text = os.environ.get(f"LAYERMELT_{name.upper()}")
    return text or _DEFAULTS[name]


def _setting(name: str, value: Any) -> Any:
    """A setting's value in its own type, or what is wrong with it."""
    variable = f"LAYERMELT_{name.upper()}"
    if name in ("verify", "agent_check"):
        word = _WORDS.get(str(value).lower())
        if word is None:
            raise InvalidOptionError(f"invalid {name} {value!r} (or {variable}): expected 1 or 0")
        return word
    if name == "timeout":
        if value is None:
            return None
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            seconds = -1.0
        if not seconds > 0:
            raise InvalidOptionError(f"invalid timeout {value!r} (or {variable}): expected seconds above 0")
        return seconds
    text = os.fsdecode(value)
    if not text or "\0" in text:
        raise InvalidOptionError(f"invalid {name} {text!r} (or {variable}): expected a path or a name")
    if name == "key" and text not in _KEYS:
        raise InvalidOptionError(f"invalid key {text!r} (or {variable}): expected one of {', '.join(_KEYS)}")
    return text


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
