"""`make demo`: real packages in layers, one image, checked, listed and booted.

Every step prints the command it stands for. Nothing outside `.cache/demo` is
written, root is not needed, Docker is not needed, and what the machine lacks
(apt, QEMU) is said and left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from integration.real import apt, boot, store

REPOSITORY = Path(__file__).resolve().parents[3]

#: What Debian's required packages need beside them to be worth an upgrade.
RUNTIMES = ["python3-minimal", "openssl", "ca-certificates"]
APPLICATION = ["python3-pygments"]
#: Read back by the booted machine, and what they show.
WITNESSES = {
    "/usr/bin/openssl": "an executable that a layer upgraded",
    "/srv/app/config.json": "a file of the top layer",
    "/etc/debian_version": "a file of the base",
}
#: Gone in a higher layer: must not be in the image.
DELETED = ["/usr/share/man/man8", "/usr/share/locale"]


def title(text: str) -> None:
    """Begins a step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def shown(command: list[str]) -> None:
    """Prints a command as one would type it, paths relative to the repository."""
    words = [word.replace(f"{REPOSITORY}/", "") for word in command]
    words[0] = Path(words[0]).name
    print("$ " + shlex.join(words), flush=True)


def run(command: list[str]) -> str:
    """Shows and runs a command; its stderr is told when it fails."""
    shown(command)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.replace(f"{REPOSITORY}/", "")


def make_chain(folder: Path) -> store.ChainMaker:
    """A base, runtimes in old versions, upgrades and deletions, an application."""
    archive = apt.Archive(folder / "apt")
    archive.update()
    base = archive.resolve(archive.packages_of_priority(["required"]))
    runtimes = [name for name in archive.resolve(RUNTIMES) if name not in base]
    known = {*base, *runtimes}
    application = [name for name in archive.resolve(APPLICATION) if name not in known]
    versions = archive.candidates([*base, *runtimes, *application])
    upgraded = [name for name in known if len(versions[name]) > 1]
    wanted = [versions[name][0] for name in (*base, *runtimes, *application)]
    files = archive.fetch([*wanted, *(versions[name][-1] for name in upgraded)])

    root = folder / "docker"
    shutil.rmtree(root, ignore_errors=True)
    maker = store.ChainMaker(root, store.probe_marks(folder))
    with maker.layer("base"):
        maker.merged_usr()
        for name in base:
            maker.install(name, files[versions[name][0]])
        for mount_point in (*boot.MOUNT_POINTS, "tmp"):
            maker.make_directory(mount_point)
    with maker.layer("runtimes"):
        for name in runtimes:
            maker.install(name, files[versions[name][0]])
    with maker.layer("upgrade"):
        for name in sorted(upgraded):
            maker.install(name, files[versions[name][-1]])
    with maker.layer("clean"):
        maker.clear("usr/share/man")
        maker.clear("usr/share/doc")
        maker.remove("usr/share/locale")
    with maker.layer("application"):
        for name in application:
            maker.install(name, files[versions[name][0]])
        maker.write("srv/app/config.json", b'{"listen": 8080}\n', 0o640)
        maker.hard_link("srv/app/config.json", "srv/app/config.default.json")
        maker.symlink("srv/app/current", ".")
    print(f"{len(upgraded)} packages upgraded, {len(known) + len(application)} packages in all")
    for layer, name in zip(
        maker.layers, ("base", "runtimes", "upgrade", "clean", "application"), strict=True
    ):
        print(f"  {layer.directory.name[:12]}  {name:12} {layer.deletions:5} names deleted")
    marks = maker.marks
    form = "character devices 0:0" if marks.devices else f"{marks.prefix}whiteout on empty files"
    print(f"deletions as {form}, replaced directories by {marks.prefix}opaque")
    return maker


def build(maker: store.ChainMaker, image: Path, agent: Path | None) -> dict[str, Any]:
    """The main job."""
    command = [str(Path(sys.executable).parent / "layermelt"), "build", str(maker.top), "-o", str(image)]
    if maker.marks.userxattr:
        command.append("--userxattr")
    if agent is not None:
        command += ["--agent", str(agent)]
    result: dict[str, Any] = json.loads(run([*command, "--json", "--quiet"]))
    print(
        f"{result['entries']:,} entries ({result['files']:,} files, {result['directories']:,} directories, "
        f"{result['symlinks']:,} symlinks), {result['content'] / 1e6:.0f} MB of content"
    )
    print(f"image of {result['size'] / 1e6:.0f} MB, of which {result['allocated'] / 1e6:.0f} MB on the disk")
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    return result


def check(image: Path) -> None:
    """Our own check, and e2fsck's where it is."""
    print(run([str(Path(sys.executable).parent / "layermelt"), "check", str(image)]), end="")
    e2fsck = shutil.which("e2fsck", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if e2fsck is None:
        print("no e2fsck on this machine")
        return
    print(run([e2fsck, "-fn", str(image)]).splitlines()[-1])


def list_inside(image: Path) -> None:
    """What is in the image, told by somebody else's program."""
    debugfs = shutil.which("debugfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if debugfs is None:
        print(run([str(Path(sys.executable).parent / "layermelt"), "inspect", str(image)]), end="")
        return
    for folder in ("/", "/srv/app"):
        command = [debugfs, "-R", f"ls -l {folder}", str(image)]
        shown(command)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            if line.strip():
                inode, mode, _, user, group, size, date, clock, name = line.split(maxsplit=8)
                print(f"  {inode:>6} {mode:>6} {user:>5}:{group:<5} {size:>8} {date} {clock} {name}")
    for path in DELETED:
        done = subprocess.run(
            [debugfs, "-R", f"stat {path}", str(image)], capture_output=True, text=True, check=True
        )
        assert "File not found" in done.stderr, f"{path} was deleted in a layer and is in the image"
        print(f"  {path}: not there, as a higher layer deleted it")


def start(image: Path, maker: store.ChainMaker) -> None:
    """Boots a copy and compares what the agent read with the layers."""
    copy = image.with_name("booted.ext4")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(image), str(copy)], check=True)
    print("QEMU without KVM, Debian's kernel and initramfs, init=/sbin/vm-agent")
    booted = boot.boot(copy, list(WITNESSES))
    for line in booted.agent:
        print(f"  agent: {line}")
    for path, what in WITNESSES.items():
        source = next(diff / path[1:] for diff in reversed(maker.diffs) if (diff / path[1:]).exists())
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        assert f"sha256 {digest} {path}" in booted.agent, f"{path} is not the one of the layers"
        print(f"  {path}: equal to the layer's ({what})")
    assert booted.agent[-1] == "done", booted.console
    print(f"booted, written to and powered off in {booted.seconds:.0f} s")
    copy.unlink()


def main() -> None:
    """Runs all steps."""
    begin = time.monotonic()
    folder = REPOSITORY / ".cache" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    lacking = apt.missing_tools()
    if lacking:
        raise SystemExit(f"the demo is made of Debian packages: {', '.join(lacking)} missing")
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    print(
        f"layermelt demo, as {who} on {platform.system()} {platform.release()}, {os.cpu_count()} processors"
    )

    title("1. Real Debian packages in five layers")
    maker = make_chain(folder)

    title("2. One image of it, with an agent inside")
    no_agent = boot.missing_compiler()
    agent = None if no_agent else boot.build_agent(folder)
    image = folder / "rootfs.ext4"
    result = build(maker, image, agent)

    title("3. Is it a sound ext4?")
    check(image)

    title("4. What is inside")
    list_inside(image)

    title("5. Does it boot?")
    no_boot = no_agent or boot.missing()
    if no_boot:
        print(f"not tried: {no_boot} is missing")
    else:
        start(image, maker)

    title("Where the time of the build went")
    for phase, seconds in result["phases"].items():
        print(f"  {phase:10} {seconds:7.3f} s")
    print(f"  {'all':10} {result['seconds']:7.3f} s   ({result['copy_method']})")
    print(f"\nThe image is {image.relative_to(REPOSITORY)}; the demo took {time.monotonic() - begin:.0f} s.")


if __name__ == "__main__":
    main()
