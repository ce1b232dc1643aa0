"""e2fsprogs as a judge: which releases are asked, and that they can say no."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from integration.oracle import judge


def test_newest_release_is_at_hand(newest_e2fsprogs_or_reason: judge.E2fsprogs | str) -> None:
    if isinstance(newest_e2fsprogs_or_reason, str):
        pytest.skip(f"the newest e2fsprogs is not to be had: {newest_e2fsprogs_or_reason}")
    numbers = [int(part) for part in newest_e2fsprogs_or_reason.version.split(".")]
    assert numbers >= [1, 47, 4]


def test_installed_release_is_at_hand() -> None:
    if judge.installed() is None:
        pytest.skip("e2fsprogs is not installed")


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """An image by mke2fs itself."""
    image = tmp_path / "sound.ext4"
    image.touch()
    os.truncate(image, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    return image


def test_a_sound_image_has_no_complaints(sound: Path, releases: list[judge.E2fsprogs]) -> None:
    for tools in releases:
        assert judge.complaints(sound, tools) == []


@pytest.mark.parametrize(
    "request_",
    [
        "set_super_value free_blocks_count 7",
        "set_inode_field lost+found links_count 9",
        "set_block_group 0 free_inodes_count 5",
        "clri lost+found",
        "seti <13>",
        "freeb 20",
    ],
    ids=lambda text: text.split()[0] + "-" + text.split()[1],
)
def test_a_fault_is_a_complaint(request_: str, sound: Path, releases: list[judge.E2fsprogs]) -> None:
    subprocess.run(
        ["debugfs", "-w", "-f", "-", sound], input=request_.encode(), capture_output=True, check=True
    )
    for tools in releases:
        assert judge.complaints(sound, tools) != [], tools.version


def test_a_flipped_bit_is_a_complaint(sound: Path, releases: list[judge.E2fsprogs]) -> None:
    """In the UUID: nothing is wrong but the superblock's checksum."""
    with sound.open("r+b") as file:
        file.seek(1024 + 0x68)
        byte = file.read(1)
        file.seek(1024 + 0x68)
        file.write(bytes([byte[0] ^ 1]))
    for tools in releases:
        assert judge.complaints(sound, tools) != [], tools.version
