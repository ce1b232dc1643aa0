"""The registry of cases: one chain for each rule of the merge."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from integration.oracle.dump import Tree, content_of
from integration.oracle.layer import Chain, PathLike

STORES = ("ext4", "xfs", "btrfs")

#: What a case claims the kernel shows at some paths, so that a case which
#: does not reach its rule is noticed: None is "nothing there", a word is the
#: kind of node, bytes are the content.
Claims = Mapping[PathLike, "str | bytes | None"]
Maker = Callable[[Chain], Claims]


@dataclass(frozen=True)
class Case:
    """One chain and what is to become of it."""

    name: str
    #: Of the specification of the merge.
    section: str
    make: Maker
    #: The kernel answers (errno) at (path): we must refuse and name the path.
    refused: tuple[str, str] | None = None
    #: The kernel shows it, but no (honest) image can: we must refuse and name
    #: this path.
    unrepresentable: str | None = None
    #: ... or make the image with the nearest time, and warn of this path.
    clamped: bool = False
    #: What e2fsck always says of such a tree, whoever wrote it.
    e2fsck_says: str | None = None
    stores: tuple[str, ...] = STORES
    userxattr: bool = False
    #: The overlay is mounted with metacopy=on.
    metacopy: bool = False
    #: Hard-link groups where identities on the overlay side mislead.
    groups: tuple[frozenset[bytes], ...] | None = None

    def build(self, store: Path, fs: str) -> tuple[list[Path], Claims]:
        """Makes the chain below ``store``."""
        chain = Chain(store / self.name, fs, userxattr=self.userxattr)
        claims = self.make(chain)
        return chain.finish(), claims


CASES: dict[str, Case] = {}


def case(
    section: str,
    *,
    refused: tuple[str, str] | None = None,
    unrepresentable: str | None = None,
    clamped: bool = False,
    e2fsck_says: str | None = None,
    stores: tuple[str, ...] = STORES,
    userxattr: bool = False,
    metacopy: bool = False,
    groups: tuple[frozenset[bytes], ...] | None = None,
    also_userxattr: bool = False,
) -> Callable[[Maker], Maker]:
    """Registers a case under its function's name.

    ``also_userxattr`` adds the same chain with ``user.overlay.*`` marks.
    """

    def register(make: Maker) -> Maker:
        name = getattr(make, "__name__", "")
        for user in (False, True) if also_userxattr else (userxattr,):
            full = f"{name}_userxattr" if user and also_userxattr else name
            if full in CASES:
                raise ValueError(f"two cases are named {full}")
            CASES[full] = Case(
                name=full,
                section=section,
                make=make,
                refused=refused,
                unrepresentable=unrepresentable,
                clamped=clamped,
                e2fsck_says=e2fsck_says,
                stores=stores,
                userxattr=user,
                metacopy=metacopy,
                groups=groups,
            )
        return make

    return register


def load() -> dict[str, Case]:
    """All cases of the package ``integration.oracle.cases``."""
    package = importlib.import_module("integration.oracle.cases")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"integration.oracle.cases.{module.name}")
    return CASES


def false_claims(claims: Claims, kernel_view: Tree) -> list[str]:
    """Claims of a case that the kernel's own view does not bear out."""
    wrong = []
    for path, claim in claims.items():
        name = path.encode() if isinstance(path, str) else path
        entry = kernel_view.entries.get(name)
        if isinstance(claim, bytes):
            holds = entry is not None and entry.content == content_of(claim)
        else:
            holds = (entry.kind if entry else None) == claim
        if not holds:
            wrong.append(f"{name!r}: claimed {claim!r}, the kernel shows {entry}")
    return wrong


def expected_tree(case: Case, kernel_view: Tree) -> Tree:
    """The kernel's view, with the case's own word on hard links where it has one."""
    if case.groups is None:
        return kernel_view
    by_name = {name: group for group in case.groups for name in group}
    for path, entry in kernel_view.entries.items():
        group = by_name.get(path, frozenset())
        kernel_view.entries[path] = replace(entry, group=group)
    return kernel_view
