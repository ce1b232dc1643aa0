"""check_image(deep=True) on sound images of others, on random damage, on hostile images."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.corrupt import Image
from integration.corrupt_kinds import make_image
from layermelt import check_image
from tools import fuzz_check

#: Layouts that mke2fs makes, each with and without content.
LAYOUTS = (
    "-t ext4",
    "-t ext3",
    "-t ext2",
    "-t ext2 -r 0",
    "-t ext4 -b 1024",
    "-t ext4 -b 2048",
    "-t ext4 -O ^64bit",
    "-t ext4 -O ^metadata_csum,uninit_bg",
    "-t ext4 -O ^metadata_csum,^uninit_bg",
    "-t ext4 -O ^flex_bg -b 1024",
    "-t ext4 -O meta_bg,^resize_inode -b 1024",
    "-t ext4 -O ^sparse_super,^resize_inode",
    "-t ext4 -O sparse_super2",
    "-t ext4 -O bigalloc -C 16384",
    "-t ext4 -O bigalloc -b 1024 -C 4096",
    "-t ext4 -O metadata_csum_seed",
    "-t ext4 -O inline_data",
    "-t ext4 -O inline_data -I 1024",
    "-t ext4 -O casefold",
    "-t ext4 -O mmp",
    "-t ext4 -O orphan_file",
    "-t ext4 -O ea_inode -I 512",
    "-t ext4 -O large_dir",
    "-t ext4 -O encrypt,verity,stable_inodes",
    "-t ext4 -I 128",
    "-t ext4 -O ^extent,^64bit,^dir_index",
    "-t ext4 -O ^filetype",
    "-t ext4 -O ^has_journal,^huge_file",
    "-t ext3 -b 1024 -I 128",
)

#: Run in the kernel's own ext4.
WORKLOAD = """
cd "$1"
mkdir many
for n in $(seq 900); do echo $n > many/a-name-that-is-rather-long-for-a-file-$n; done
rm many/*7*
mkdir -p a/b/c && mv a/b/c a/moved && ln a/../many/*-99 a/link && rm -r many/*-1*
ln -s $(printf 'x%.0s' $(seq 200)) a/symlink && mkfifo a/fifo && mknod a/null c 1 3
dd if=/dev/zero of=a/holes bs=4096 count=1 seek=3000 conv=notrunc status=none
fallocate -l 3M a/unwritten && truncate -s 100 a/unwritten
setfattr -n user.name -v "$(printf 'v%.0s' $(seq 300))" a a/link a/moved 2>/dev/null || true
dd if=/dev/zero of=full bs=64k status=none 2>/dev/null || true
rm full
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("good"))


def mke2fs(path: Path, options: str, *more: str) -> None:
    options = options if "-b " in options else f"-b 4096 {options}"
    command = ["mke2fs", "-q", "-F", *options.split(), *more, str(path), "64M"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("options", LAYOUTS)
def test_images_of_mke2fs_are_sound(options: str, good: Path, tmp_path: Path) -> None:
    for more in ((), ("-d", str(good.parent / "tree"))):
        image = tmp_path / "image"
        image.unlink(missing_ok=True)
        mke2fs(image, options, *more)
        assert check_image(image, deep=True).problems == ()


@pytest.mark.parametrize(("options", "sound"), [("-t ext3", True), ("-t ext4", False)])
def test_a_journal_whose_file_ends_behind_it(options: str, sound: bool, tmp_path: Path) -> None:
    """Of a block map e2fsck has a copy with the right size, and the kernel does not mind."""
    image = tmp_path / "image"
    mke2fs(image, f"{options} -O ^metadata_csum -b 1024")
    change = ["debugfs", "-w", "-R", f"sif <8> size {(4096 << 10) + 1}", str(image)]
    subprocess.run(change, check=True, capture_output=True)
    checked = subprocess.run(["e2fsck", "-fn", image], check=False, capture_output=True)
    assert (checked.returncode == 0, check_image(image, deep=True).sound) == (sound, sound)


@pytest.mark.parametrize("options", ["-t ext2", "-t ext4 -O bigalloc -C 16384"])
def test_bad_blocks_lie_anywhere(options: str, tmp_path: Path) -> None:
    """In any cluster, and two in one, which e2fsck only wonders about."""
    image, listed = tmp_path / "image", tmp_path / "bad"
    listed.write_text("2003\n9001\n9002\n9004\n12345\n")
    mke2fs(image, options, "-l", str(listed))
    assert subprocess.run(["e2fsck", "-fn", image], check=False, capture_output=True).returncode == 0
    assert check_image(image, deep=True).problems == ()


def test_an_index_of_inline_data(tmp_path: Path) -> None:
    image, tree = tmp_path / "image", tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    mke2fs(image, "-t ext4 -O inline_data", "-d", str(tree))
    command = "sif /d flags 0x10001000"
    subprocess.run(["debugfs", "-w", "-R", command, image], check=True, capture_output=True)
    done = subprocess.run(["e2fsck", "-fn", image], check=False, capture_output=True)
    assert b"has an invalid root node" in done.stdout
    assert b"checksum" not in done.stdout
    assert [problem.code for problem in check_image(image, deep=True).problems] == ["inode-flags"]


@pytest.mark.root
@pytest.mark.parametrize(
    "options", ["-t ext4", "-t ext4 -b 1024", "-t ext4 -O inline_data", "-t ext4 -O bigalloc"]
)
def test_images_that_the_kernel_wrote_are_sound(options: str, tmp_path: Path) -> None:
    image, mount, crashed = tmp_path / "image", tmp_path / "mnt", tmp_path / "crashed"
    mke2fs(image, options)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        subprocess.run(["bash", "-ec", WORKLOAD, "bash", mount], check=True, capture_output=True)
        subprocess.run(["sync", "-f", mount], check=True)
        # This much is in the journal only.
        for number in range(100):
            (mount / "many" / f"late-{number}").write_bytes(b"late" * 2000)
        subprocess.run(["sync", mount / "many" / "late-99"], check=True)
        subprocess.run(["cp", image, crashed], check=True)
    finally:
        subprocess.run(["umount", mount], check=True)
    report = check_image(image, deep=True)
    assert subprocess.run(["e2fsck", "-fn", image], check=False, capture_output=True).returncode == 0
    assert report.problems == ()
    # A copy of the mounted image is a crashed one: behind its journal, which is replayed in
    # memory, there is nothing else to find. The bitmap is in the journal, so it may be lost.
    lost = Image(crashed)
    group = (lost.number("/many") - 1) // lost.inodes_per_group
    bitmap = lost.u32(lost.descriptor(group) + 4) * lost.block_size
    lost.data[bitmap : bitmap + lost.block_size] = b"\xa5" * lost.block_size
    lost.save()
    assert {problem.code for problem in check_image(crashed, deep=True).problems} == {"needs-recovery"}


def test_random_damage_is_judged_as_by_e2fsck(tmp_path: Path) -> None:
    outcome = fuzz_check.Outcome()
    for seed, image in enumerate(fuzz_check.images(tmp_path)):
        # Not for so long: a faster machine would look at other damage.
        fuzz_check.fuzz(image, range(40), seed, outcome)
    assert outcome.bad > outcome.runs // 10
    assert not outcome.missed
    assert not outcome.alarms


HOSTILE = """
import re, sys, time
from layermelt import check_image
begin = time.monotonic()
report = check_image(sys.argv[1], deep=True)
assert not report.sound
# Not ru_maxrss: that knows what the process was before exec, a large pytest.
with open("/proc/self/status") as status:
    peak = int(re.search("VmHWM:\\s+([0-9]+) kB", status.read())[1])
assert peak < 200 << 10, peak
assert time.monotonic() - begin < 20
"""


@pytest.mark.parametrize("damage", ["cut", "ones", "ones-behind-magic", "huge"])
def test_hostile_images_cost_little(damage: str, good: Path, tmp_path: Path) -> None:
    data = bytearray(good.read_bytes())
    image = tmp_path / "hostile"
    if damage == "cut":
        data = data[: len(data) // 3]
    elif damage == "ones":
        data[1024:2048] = b"\xff" * 1024
    elif damage == "ones-behind-magic":
        data[1024 + 0x3C : 2048] = b"\xff" * (1024 - 0x3C)
    else:
        data[1024 + 0x04 : 1024 + 0x08] = b"\xff" * 4
    image.write_bytes(data)
    if damage == "huge":
        with image.open("r+b") as file:
            file.truncate(1 << 42)
    subprocess.run([sys.executable, "-c", HOSTILE, image], check=True, timeout=60)


def test_the_command_tells_what_is_wrong(good: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    data = bytearray(good.read_bytes())
    # A record's name, below its checksum: too deep for the check of the surface.
    data[data.index(b"00042nnn") + 50] ^= 1
    image.write_bytes(data)
    command = [sys.executable, "-m", "layermelt", "check", "--json"]
    surface = subprocess.run([*command, image], check=False, capture_output=True)
    assert surface.returncode == 0
    assert json.loads(surface.stdout)["deep"] is False
    deep = subprocess.run([*command, "--deep", image], check=False, capture_output=True)
    assert deep.returncode == 1
    told = json.loads(deep.stdout)
    assert told["deep"] is True
    assert "directory-checksum" in {problem["code"] for problem in told["problems"]}


def test_the_command_tells_how_far_it_is_and_stops_at_once(tmp_path: Path) -> None:
    image = tmp_path / "large"
    # Of so many groups that it takes a moment; together, their bitmaps are few pieces of a file.
    options = "-t ext4 -b 1024 -g 2048 -G 131072 -N 200000 -O ^has_journal,^resize_inode,sparse_super2"
    lazy = "lazy_itable_init=1,nodiscard"
    command = ["mke2fs", "-q", "-F", *options.split(), "-E", lazy, str(image), "40G"]
    subprocess.run(command, check=True, capture_output=True)
    ours, theirs = pty.openpty()
    program = "import layermelt.meter; layermelt.meter._PATIENCE = -1; from layermelt.cli import main; main()"
    command = [sys.executable, "-c", program, "check", "--deep", str(image)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    told = b""
    try:
        while b"layermelt: " not in told:
            told += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        assert process.wait(timeout=60) == 130
        assert time.monotonic() - begin < 0.5
        told += os.read(ours, 4096)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert told.startswith(b"\rlayermelt: ")
    assert told.endswith(b" \r\r\nlayermelt: interrupted\r\n")
