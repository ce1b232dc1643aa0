#!/usr/bin/python3
"""Makes a chain on the disk that it runs on, melts it, checks the image and tells its SHA-256.

The same program runs in a guest and on the host: what they tell must be equal. It needs
layermelt, as installed from its wheel, and nothing of the tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

EPOCH = 1_700_000_000
#: The program is started by itself in a guest.
FOLDER = "/var/melt"


def make_chain(folder: Path) -> Path:
    """Three layers: a base, a deletion and a replaced directory, a top; the top's directory."""
    noise = random.Random(11)
    overlay = folder / "overlay2"
    (overlay / "l").mkdir(parents=True)
    layers: list[Path] = []
    for name in ("base", "middle", "top"):
        layer = overlay / name
        diff = layer / "diff"
        diff.mkdir(parents=True)
        (layer / "link").write_text(name.upper())
        (overlay / "l" / name.upper()).symlink_to(f"../{name}/diff")
        if layers:
            (layer / "lower").write_text(":".join(f"l/{one.name.upper()}" for one in reversed(layers)))
        layers.append(layer)
    base, middle, top = (layer / "diff" for layer in layers)
    for number in range(200):
        write(base / f"usr/share/many/{number:03}", noise.randbytes(number * 37))
    write(base / "usr/lib/big", noise.randbytes(3_000_001))
    write(base / "etc/gone", b"gone\n")
    write(base / "etc/kept", b"kept\n", 0o640)
    os.link(base / "etc/kept", base / "etc/linked")
    (base / "bin").symlink_to("usr/bin")
    (middle / "etc").mkdir()
    os.mknod(middle / "etc/gone", stat.S_IFCHR, os.makedev(0, 0))
    write(middle / "usr/share/many/only", b"only\n")
    os.setxattr(middle / "usr/share/many", "trusted.overlay.opaque", b"y")
    write(top / "etc/passwd", b"root:x:0:0::/:/bin/sh\n")
    os.setxattr(top / "etc/passwd", "user.origin", b"the top layer")
    for layer in layers:
        date(layer / "diff")
    return layers[-1]


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """A file, with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def date(tree: Path) -> None:
    """All times are the same, everywhere."""
    for place, directories, files in os.walk(tree, topdown=False):
        for name in [*files, *directories, "."]:
            os.utime(os.path.join(place, name), (EPOCH, EPOCH), follow_symlinks=False)


def main(folder: Path) -> None:
    """Does it, and prints one line of JSON."""
    os.umask(0o022)
    shutil.rmtree(folder, ignore_errors=True)
    top = make_chain(folder)
    agent = folder / "vm-agent"
    write(agent, b"#!/bin/sh\n", 0o755)
    command = [sys.executable, "-m", "layermelt"]
    options = ["--cache-dir", str(folder / "cache"), "--agent", str(agent), "--no-agent-check"]
    converted = subprocess.run(
        [*command, "convert", str(top), *options], check=True, stdout=subprocess.PIPE, text=True
    )
    image = Path(converted.stdout.strip())
    subprocess.run([*command, "check", str(image)], check=True, stdout=subprocess.DEVNULL)
    import layermelt

    told = {
        "sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
        "size": image.stat().st_size,
        "kernel": os.uname().release,
        "python": ".".join(map(str, sys.version_info[:2])),
        "layermelt": layermelt.__file__,
    }
    print("melted: " + json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else FOLDER))
