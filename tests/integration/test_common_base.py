"""What the order of placement promises: alike where the layers are alike."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from integration.conftest import Stores
from integration.oracle import product
from integration.oracle.layer import Chain

pytestmark = pytest.mark.root

BLOCK = 4096


def base_and_changes(store: Path) -> list[Path]:
    """A base, and a layer that adds, replaces and removes a little."""
    chain = Chain(store / "chain", "ext4")
    base, top = chain.two()
    numbers = random.Random(2)
    for number in range(1500):
        size = numbers.choice((100, 4096, 9000, 30_000))
        base.file(f"d{number % 23}/e{number % 5}/{number}", numbers.randbytes(size))
    base.file("big", numbers.randbytes(20 << 20))
    for number in range(0, 1500, 100):
        top.file(f"d{number % 23}/e{number % 5}/{number}", b"replaced")
        top.file(f"new{number}/file", numbers.randbytes(5000))
        top.whiteout(f"d{(number + 1) % 23}/e{(number + 1) % 5}/{number + 1}")
    return chain.finish()


def test_images_of_one_base_are_alike(stores: Stores, tmp_path: Path) -> None:
    """A block of the base's data lies where it lies in the image of the base alone."""
    layers = base_and_changes(stores("ext4"))
    one, two = tmp_path / "one.ext4", tmp_path / "two.ext4"
    product.build(layers[:1], one)
    product.build(layers, two)
    same = other = 0
    with one.open("rb") as first, two.open("rb") as second:
        # Both are mostly holes: only where the first has data is compared.
        position = 0
        while True:
            try:
                start = os.lseek(first.fileno(), position, os.SEEK_DATA)
            except OSError:
                break
            position = os.lseek(first.fileno(), start, os.SEEK_HOLE)
            for at in range(start, position, BLOCK):
                block = os.pread(first.fileno(), BLOCK, at)
                if block.count(0) == BLOCK:
                    continue
                equal = block == os.pread(second.fileno(), BLOCK, at)
                same, other = same + equal, other + (not equal)
    assert same > 5000, "nothing was compared"
    # Directories, inode tables and bitmaps that changed; hardly any data.
    assert other / (same + other) < 0.05, f"{other} of {same + other} blocks differ"


def test_hidden_data_is_not_copied(stores: Stores, tmp_path: Path) -> None:
    """What a higher layer hides costs neither time nor room."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    base, top = chain.two()
    block = random.Random(4).randbytes(1 << 20)
    base.file("hidden", block * 64)
    base.file("d/hidden", block * 32)
    base.file("replaced", block * 16)
    top.whiteout("hidden")
    top.directory("d", opaque=b"y")
    top.file("replaced")
    result = product.build(chain.finish(), tmp_path / "image.ext4")
    assert result.written < 2 << 20
    assert os.stat(tmp_path / "image.ext4").st_blocks * 512 < 4 << 20
