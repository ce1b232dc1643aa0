"""Random trees: what differs by us is what differs by a walk of our own in Python."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from integration.conftest import Stores
from integration.oracle import mounts, product, random_trees
from integration.oracle.dump import Entry, dump
from integration.oracle.layer import Chain
from integration.oracle.random_trees import LayerSpec
from integration.test_diff import compare, directory_side, image_side

pytestmark = pytest.mark.root

EXAMPLES = int(os.environ.get("LAYERMELT_EXAMPLES", "0"))

bounded = settings(
    max_examples=EXAMPLES or 20,
    derandomize=EXAMPLES == 0,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

#: Our names of what the walk calls otherwise.
NAMES = {"kind": "type", "mtime_ns": "mtime", "xattrs": "xattr", "rdev": "device", "group": "links"}

Found = dict[bytes, set[str]]


def by_a_walk(a: Path, b: Path) -> Found:
    """The fields that differ, by path, as the walk of the oracle tells both trees."""
    trees = [dump(a).entries, dump(b).entries]
    found: Found = {}
    for path in trees[0].keys() | trees[1].keys():
        left, right = trees[0].get(path), trees[1].get(path)
        if left is None or right is None:
            differ = {"only-b" if left is None else "only-a"}
        else:
            differ = different(left, right)
        if differ:
            found[b"/" + path] = differ
    return found


def different(left: Entry, right: Entry) -> set[str]:
    names = {one.name for one in fields(Entry) if getattr(left, one.name) != getattr(right, one.name)}
    if left.kind != right.kind:
        # What only one type has is not compared.
        names -= {"rdev", "size", "content", "target"}
    if "target" in names or "size" in names:
        # A symlink's size is its target's; a file of another size has other content.
        names -= {"size"} if "target" in names else {"content"}
    if "directory" in (left.kind, right.kind):
        names -= {"group"}
    return {NAMES.get(name, name) for name in names}


def ours(
    told: list[tuple[bytes, str, object, object, int, list[tuple[str, object, object, object]]]],
) -> Found:
    return {path: {change[0] for change in changes} or {kind} for path, kind, _, _, _, changes in told}


@bounded
@given(first=random_trees.layers, second=random_trees.layers)
def test_two_trees(first: LayerSpec, second: LayerSpec, stores: Stores) -> None:
    store = stores("ext4")
    chain = Chain(store / "chain", "ext4", userxattr=False)
    try:
        for spec in (first, second):
            random_trees.make(chain, spec, marks=False)
        a, b = chain.finish()
        expected = by_a_walk(a, b)
        told = compare(directory_side(a), directory_side(b), strict=True)
        assert ours(told) == expected
        assert [one[0] for one in told] == sorted(expected)
        assert compare(directory_side(b), directory_side(b), strict=True) == []
        with tempfile.TemporaryDirectory() as scratch:
            image = Path(scratch) / "image"
            product.build([b], image)
            with mounts.image(image) as mounted:
                expected = by_a_walk(a, mounted)
            assert ours(compare(directory_side(a), image_side(image), strict=True)) == expected
    finally:
        chain.unlock()
        shutil.rmtree(store)
