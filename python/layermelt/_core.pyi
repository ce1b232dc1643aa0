"""The core of layermelt, in Rust. Private: use the package's functions."""

from collections.abc import Callable, Sequence
from typing import Any, final

__all__ = [
    "FORMAT_EPOCH",
    "BuildReport",
    "CloneReport",
    "Counts",
    "GrowReport",
    "ImageReport",
    "Problem",
    "__version__",
    "build_image",
    "chain_digest",
    "chain_of",
    "check_agent",
    "check_agent_mounted",
    "check_image",
    "clone_file",
    "diff_trees",
    "file_digest",
    "grow_file",
    "has_ext4_magic",
    "inspect_layers",
    "layer_digest",
    "layer_fingerprint",
    "path_key",
    "stat_fingerprint",
]

__version__: str
FORMAT_EPOCH: int

@final
class Counts:
    @property
    def entries(self) -> int: ...
    @property
    def directories(self) -> int: ...
    @property
    def files(self) -> int: ...
    @property
    def symlinks(self) -> int: ...
    @property
    def special(self) -> int: ...
    @property
    def hard_links(self) -> int: ...
    @property
    def bytes(self) -> int: ...

@final
class BuildReport:
    @property
    def counts(self) -> Counts: ...
    @property
    def image_bytes(self) -> int: ...
    @property
    def written_bytes(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def inodes(self) -> int: ...
    @property
    def free_inodes(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def uuid(self) -> bytes: ...
    @property
    def copy_method(self) -> str: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def phases(self) -> dict[str, float]: ...

@final
class Problem:
    @property
    def code(self) -> str: ...
    @property
    def text(self) -> str: ...

@final
class ImageReport:
    @property
    def size(self) -> int: ...
    @property
    def problems(self) -> tuple[Problem, ...]: ...
    @property
    def more_problems(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def uuid(self) -> bytes: ...
    @property
    def label(self) -> bytes: ...
    @property
    def block_size(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def inodes(self) -> int: ...
    @property
    def free_inodes(self) -> int: ...
    @property
    def inode_size(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def features(self) -> tuple[str, ...]: ...
    @property
    def journal(self) -> str: ...
    @property
    def state(self) -> str: ...

def build_image(
    layers: Sequence[str],
    output: str,
    target: str,
    *,
    userxattr: bool,
    fuse_overlayfs: bool,
    files: Sequence[tuple[str | bytes, bytes, int, int, int]],
    size: int | str,
    free_space: int,
    inodes: int | None,
    label: bytes,
    uuid: bytes | None,
    timestamp: int | None,
    threads: int,
    sync: bool,
    progress: Callable[[str, int, int], object] | None,
    profile: str = "default",
    journal: int | None = None,
    reserved: int = 0,
    check_agent: bool = False,
    block_size: int = 4096,
    inode_flags: bool = False,
) -> BuildReport: ...
def check_agent(
    layers: Sequence[str],
    *,
    userxattr: bool,
    fuse_overlayfs: bool,
    agent: tuple[str | bytes, bytes, int, int, int],
    threads: int,
    progress: Callable[[str, int, int], object] | None,
) -> None: ...
def check_agent_mounted(root: str, agent: str, *, named: str, mode: int) -> None: ...
def inspect_layers(
    layers: Sequence[str],
    *,
    userxattr: bool,
    fuse_overlayfs: bool,
    threads: int,
    progress: Callable[[str, int, int], object] | None = None,
) -> tuple[Counts, list[str], float]: ...
def has_ext4_magic(path: str, /) -> bool: ...
def check_image(
    path: str, /, *, deep: bool = False, progress: Callable[[str, int, int], object] | None = None
) -> ImageReport: ...

@final
class CloneReport:
    @property
    def method(self) -> str: ...
    @property
    def reasons(self) -> list[str]: ...
    @property
    def bytes_cloned(self) -> int: ...
    @property
    def bytes_copied(self) -> int: ...
    @property
    def holes(self) -> int: ...

def clone_file(
    source: str,
    output: str,
    target: str,
    *,
    progress: Callable[[str, int, int], object] | None,
) -> CloneReport: ...

@final
class GrowReport:
    @property
    def block_size(self) -> int: ...
    @property
    def old(self) -> tuple[int, int, int, int, int]: ...
    @property
    def new(self) -> tuple[int, int, int, int, int]: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def written_bytes(self) -> int: ...
    @property
    def meta_bg(self) -> bool: ...
    @property
    def events(self) -> list[tuple[str, int, bytes]]: ...

def grow_file(
    path: str,
    identity: tuple[int, int],
    target: str,
    size: int,
    *,
    atomic: bool,
    sync: bool,
    record: bool,
    progress: Callable[[str, int, int], object] | None,
) -> tuple[GrowReport | None, str | None]: ...
def diff_trees(
    a: tuple[str, Sequence[str], bool, bool],
    b: tuple[str, Sequence[str], bool, bool],
    *,
    ignore: Sequence[str],
    exclude: Sequence[bytes],
    all_names: bool,
    strict: bool,
    threads: int,
    tell: Callable[
        [tuple[bytes, str, str | None, int | None, int, list[tuple[str, bytes | None, Any, Any]]]], object
    ],
    progress: Callable[[str, int, int], object] | None,
) -> tuple[tuple[int, int, int], Counts, Counts, list[str]]: ...
def layer_digest(
    layer: str,
    *,
    threads: int,
    progress: Callable[[str, int, int], object] | None,
    inode_flags: bool = False,
) -> bytes: ...
def chain_digest(
    layers: Sequence[str],
    *,
    userxattr: bool,
    fuse_overlayfs: bool,
    threads: int,
    progress: Callable[[str, int, int], object] | None,
    inode_flags: bool = False,
) -> bytes: ...
def stat_fingerprint(
    layers: Sequence[str],
    *,
    userxattr: bool,
    fuse_overlayfs: bool,
    threads: int,
    progress: Callable[[str, int, int], object] | None,
    inode_flags: bool = False,
) -> bytes: ...
def layer_fingerprint(
    layer: str,
    *,
    threads: int,
    progress: Callable[[str, int, int], object] | None,
    inode_flags: bool = False,
) -> tuple[bytes, int | None]: ...
def chain_of(layers: Sequence[bytes], *, userxattr: bool, fuse_overlayfs: bool) -> bytes: ...
def file_digest(path: str, *, threads: int, progress: Callable[[str, int, int], object] | None) -> bytes: ...
def path_key(path: str, /) -> str: ...
