"""`layermelt diff` against the kernel: what it says is equal, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Stores
from integration.oracle import chains, mounts
from integration.oracle.chains import Case
from layermelt import _core

pytestmark = pytest.mark.root

#: Left out are those that the kernel refuses or shows corrupt, and those in which
#: the overlay's inode numbers mislead about hard links.
CASES = [
    pytest.param(case, id=f"{case.section}-{case.name}")
    for case in chains.load().values()
    if case.refused is None and case.groups is None and case.name != "metacopy_of_another_size"
]

Side = tuple[str, Sequence[str], bool, bool]


def chain_side(layers: Sequence[Path], *, userxattr: bool = False) -> Side:
    """A chain that lies in no store."""
    return ("chain", [str(layer) for layer in layers], userxattr, False)


def compare(a: Side, b: Side, *, strict: bool = False) -> list[Any]:
    """The differences as the core tells them."""
    told: list[Any] = []
    _core.diff_trees(
        a,
        b,
        ignore=[],
        exclude=[],
        all_names=True,
        strict=strict,
        threads=2,
        tell=told.append,
        progress=None,
    )
    return told


@pytest.mark.parametrize("case", CASES)
def test_a_chain_is_what_the_kernel_mounts_of_it(case: Case, stores: Stores) -> None:
    """Our merge against a plain directory that is the kernel's merge."""
    fs = case.stores[0]
    layers, _ = case.build(stores(fs), fs)
    with mounts.overlay(layers, userxattr=case.userxattr, metacopy=case.metacopy) as merged:
        ours = chain_side(layers, userxattr=case.userxattr)
        assert compare(ours, ("directory", [str(merged)], False, False), strict=True) == []
