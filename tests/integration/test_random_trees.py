"""Random layers and random wishes: what the kernel shows of the image is what it shows of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import layermelt
from integration.conftest import Judge, Stores
from integration.oracle import chains, mounts, product, random_trees
from integration.oracle.compare import differences, report
from integration.oracle.dump import Tree, dump, inode_flags
from integration.oracle.layer import Chain
from integration.oracle.random_trees import LayerSpec

pytestmark = [
    pytest.mark.root,
    # A chain that fails is shown whole.
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

#: How many chains are made on each kind of store; LAYERMELT_EXAMPLES asks for more,
#: and then for others on each run.
EXAMPLES = int(os.environ.get("LAYERMELT_EXAMPLES", "0"))

bounded = settings(
    max_examples=EXAMPLES or 30,
    derandomize=EXAMPLES == 0,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    # To make a failing chain smaller takes five minutes.
    phases=[Phase.generate, Phase.shrink] if "LAYERMELT_SHRINK" in os.environ else [Phase.generate],
)


@pytest.mark.parametrize("fs", chains.STORES)
@bounded
@given(
    specs=st.lists(random_trees.layers, min_size=1, max_size=4),
    userxattr=st.booleans(),
    wish=random_trees.options,
)
def test_image_of_a_chain(
    fs: str,
    specs: list[LayerSpec],
    userxattr: bool,
    wish: dict[str, Any],
    stores: Stores,
    judge_image: Judge,
) -> None:
    store = stores(fs)
    chain = Chain(store / "chain", fs, userxattr=userxattr)
    try:
        for spec in specs:
            random_trees.make(chain, spec, marks=len(specs) > 1)
        check(chain, store, wish, judge_image)
    finally:
        chain.unlock()
        shutil.rmtree(store)


def check(chain: Chain, store: Path, wish: dict[str, Any], judge_image: Judge) -> None:
    layers = chain.finish()
    with mounts.overlay(layers, userxattr=chain.userxattr) as merged:
        kernel_view = dump(merged)
        flags = inode_flags(merged) if wish["inode_flags"] else {}
    # In the layers' own file system, where that shares blocks.
    with tempfile.TemporaryDirectory(dir=None if chain.fs == "ext4" else store) as scratch:
        output = Path(scratch) / "image.ext4"
        if kernel_view.refused:
            refused_as_by_the_kernel(kernel_view, layers, output, userxattr=chain.userxattr)
            return
        result = product.build(layers, output, userxattr=chain.userxattr, **wish)
        judge_image(output)
        assert layermelt.check_image(output, deep=True).problems == ()
        with mounts.image(output) as mounted:
            lines = differences(kernel_view, dump(mounted))
            assert inode_flags(mounted) == flags
            space = os.statvfs(mounted)
        assert not lines, report(lines)
        assert space.f_files >= (wish["inodes"] or 0)
        if wish["size"] == "auto" and wish["profile"] != "readonly":
            assert space.f_bfree * space.f_frsize >= wish["free_space"] + wish["reserved"]
        if not isinstance(wish["size"], str):
            block_size = wish["block_size"]
            assert output.stat().st_size == wish["size"] // block_size * block_size == result.size


def refused_as_by_the_kernel(kernel_view: Tree, layers: list[Path], output: Path, *, userxattr: bool) -> None:
    message = product.refusal(layers, output, userxattr=userxattr)
    named = [f"/{os.fsdecode(path)}" in message for path in kernel_view.refused]
    assert any(named), f"{kernel_view.refused} against {message}"
