"""Random layers: what the kernel shows of the image is what it shows of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.conftest import Judge, Stores
from integration.oracle import mounts, product, random_trees
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import Chain
from integration.oracle.random_trees import LayerSpec

pytestmark = pytest.mark.root

#: How many chains each test makes; LAYERMELT_EXAMPLES asks for more, and then
#: for others on each run.
EXAMPLES = int(os.environ.get("LAYERMELT_EXAMPLES", "0"))

bounded = settings(
    max_examples=EXAMPLES or 50,
    derandomize=EXAMPLES == 0,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@bounded
@given(spec=random_trees.layers)
def test_image_of_one_tree(spec: LayerSpec, stores: Stores, judge_image: Judge) -> None:
    check([spec], stores("ext4"), judge_image, marks=False, userxattr=False)


@bounded
@given(specs=st.lists(random_trees.layers, min_size=2, max_size=4), userxattr=st.booleans())
def test_image_of_a_chain(
    specs: list[LayerSpec], userxattr: bool, stores: Stores, judge_image: Judge
) -> None:
    check(specs, stores("ext4"), judge_image, marks=True, userxattr=userxattr)


def check(specs: list[LayerSpec], store: Path, judge_image: Judge, *, marks: bool, userxattr: bool) -> None:
    chain = Chain(store / "chain", "ext4", userxattr=userxattr)
    try:
        for spec in specs:
            random_trees.make(chain, spec, marks=marks)
        layers = chain.finish()
        with mounts.overlay(layers, userxattr=userxattr) as merged:
            kernel_view = dump(merged)
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "image.ext4"
            if kernel_view.refused:
                message = product.refusal(layers, output, userxattr=userxattr)
                named = [f"/{os.fsdecode(path)}" in message for path in kernel_view.refused]
                assert any(named), f"{kernel_view.refused} against {message}"
                return
            product.build(layers, output, userxattr=userxattr)
            judge_image(output)
            with mounts.image(output) as mounted:
                shown = dump(mounted)
        lines = differences(kernel_view, shown)
        assert not lines, report(lines)
    finally:
        shutil.rmtree(store)
