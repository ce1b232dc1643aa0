"""check_image(deep=True) says of peers' images what e2fsck says."""

from __future__ import annotations

import lzma
import os
import subprocess
from pathlib import Path

import pytest

from integration.corrupt import Image
from integration.oracle import judge
from layermelt import check_image

PACKED = sorted((Path(__file__).parent / "peers").glob("*.img.xz"))


def verdicts(image: Path, releases: list[judge.E2fsprogs]) -> set[bool]:
    """Whether it is sound, by every release."""
    return {tools.run("e2fsck", "-fn", str(image)).returncode == 0 for tools in releases}


def test_all_are_there() -> None:
    assert [path.name for path in PACKED] == [
        "mkext4.img.xz",
        "tar2ext4-inline.img.xz",
        "tar2ext4.img.xz",
    ]


@pytest.mark.parametrize("packed", PACKED, ids=lambda path: path.name)
def test_images_of_mkext4_and_tar2ext4(packed: Path, tmp_path: Path, releases: list[judge.E2fsprogs]) -> None:
    image = tmp_path / "image"
    image.write_bytes(lzma.decompress(packed.read_bytes()))
    report = check_image(image, deep=True)
    assert verdicts(image, releases) == {report.sound}
    expected = set() if packed.name.startswith("mkext4") else {"bitmap-padding"}
    assert {problem.code for problem in report.problems} == expected
    # A link more than there are names.
    damaged = Image(image)
    at = damaged.inode(damaged.number("/etc/f7")) + 0x1A
    damaged.put(at, damaged.u16(at) + 1, 2)
    damaged.save()
    assert verdicts(image, releases) == {False}
    assert "link-count" in {problem.code for problem in check_image(image, deep=True).problems}


def chain(store: Path) -> Path:
    """Two layers in overlay2's form; returns the upper one's directory."""
    lower, upper = store / "overlay2/lower", store / "overlay2/upper"
    for name in ("kept", "replaced", "emptied"):
        (lower / "diff" / name / "below").mkdir(parents=True)
        (lower / "diff" / name / "below/file").write_bytes(b"f" * 5000)
        (lower / "diff" / name / "link").symlink_to("t" * 80)
    (upper / "diff").mkdir(parents=True)
    for number, layer in enumerate((lower, upper)):
        (layer / "link").write_text("LU"[number])
    (store / "overlay2/l").mkdir()
    (store / "overlay2/l/L").symlink_to("../lower/diff")
    (store / "overlay2/l/U").symlink_to("../upper/diff")
    (upper / "lower").write_text("l/L")
    return upper


@pytest.mark.root
@pytest.mark.parametrize("change", ["nothing", "file", "opaque", "whiteout"])
def test_images_of_oci2rootfs(
    change: str, tmp_path: Path, oci2rootfs: Path, releases: list[judge.E2fsprogs]
) -> None:
    upper = chain(tmp_path)
    (upper / "diff/kept").mkdir()
    (upper / "diff/kept/new").touch()
    if change == "file":
        (upper / "diff/replaced").write_bytes(b"file")
    elif change == "opaque":
        (upper / "diff/emptied").mkdir()
        os.setxattr(upper / "diff/emptied", "trusted.overlay.opaque", b"y")
    elif change == "whiteout":
        os.mknod(upper / "diff/replaced", 0o20000)
    image = tmp_path / "image"
    subprocess.run([oci2rootfs, upper, "--output", image], check=True, capture_output=True)
    report = check_image(image, deep=True)
    assert verdicts(image, releases) == {report.sound}, report.problems
    # Of a directory that went away, oci2rootfs 0.3.0 leaves behind what was in it.
    assert report.sound == (change in {"nothing", "opaque"})
