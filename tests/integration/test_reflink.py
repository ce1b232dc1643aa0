"""Where the host's file system can, an image shares blocks with the layers' files.

How the bytes came over must not show in them: the same image, whether its blocks
are shared or copied.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import product
from integration.oracle.dump import content_of_file
from integration.oracle.layer import Chain

pytestmark = pytest.mark.root

#: Around the length from which on blocks are shared, and around block borders.
SIZES = (0, 1, 4096, 65_535, 65_536, 65_537, 69_632, 1 << 20, (9 << 20) + 17, 40 << 20)


def made(store: Path) -> list[Path]:
    chain = Chain(store / "chain", "xfs")
    numbers = random.Random(11)
    for layer in (chain.layer(), chain.layer()):
        for size in SIZES:
            layer.file(f"{layer.number}-{size}", numbers.randbytes(size))
        # Shared but for a hole, and a name of a file that is shared already.
        layer.file(f"holed-{layer.number}", numbers.randbytes(1 << 20))
        os.truncate(layer.at(f"holed-{layer.number}"), 8 << 20)
        layer.link(f"{layer.number}-{40 << 20}", f"again-{layer.number}")
    return chain.finish()


@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
def test_shared_blocks_and_the_same_bytes(
    fs: str, stores: Stores, judge_image: Judge, tmp_path: Path
) -> None:
    store = stores(fs)
    layers = made(store)
    shared = store / "shared.ext4"
    copied = tmp_path / "copied.ext4"
    result = product.build(layers, shared, threads=2)
    assert "reflink" in result.copy_method
    assert "reflink" not in product.build(layers, copied, threads=2).copy_method
    judge_image(shared)
    assert content_of_file(shared) == content_of_file(copied)


@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
def test_writing_to_the_image_leaves_the_layer_alone(fs: str, stores: Stores) -> None:
    store = stores(fs)
    layers = made(store)
    name = f"0-{40 << 20}"
    file = next(layer / name for layer in layers if (layer / name).exists())
    before = content_of_file(file)
    image = store / "image.ext4"
    product.build(layers, image)
    with open(image, "r+b") as opened:
        for offset in range(0, image.stat().st_size, 1 << 20):
            opened.seek(offset)
            opened.write(b"\xff" * 4096)
        os.fsync(opened.fileno())
    assert content_of_file(file) == before


def test_ext4_cannot_and_it_does_not_matter(stores: Stores, judge_image: Judge) -> None:
    store = stores("ext4")
    image = store / "image.ext4"
    result = product.build(made(store), image)
    assert "reflink" not in result.copy_method
    judge_image(image)
