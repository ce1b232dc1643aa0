"""Fixtures of the tests that use kernel mounts, e2fsprogs and real stores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from integration.oracle import judge, kernel, mounts
from tools import newest_e2fsprogs

CAP_SYS_ADMIN = 21


def has_capability(number: int) -> bool:
    """Is that capability in effect?"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def has_privileges() -> bool:
    """May this process mount?"""
    return has_capability(CAP_SYS_ADMIN) and os.geteuid() == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without privileges, what is marked ``root`` is skipped, and says so."""
    if has_privileges():
        return
    reason = "needs root with CAP_SYS_ADMIN: mounts overlayfs, ext4 and loop devices"
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _private_mounts() -> None:
    """No mount of a test is seen outside, and none outlives the session."""
    if has_privileges():
        kernel.enter_private_mount_namespace()


Stores = Callable[[str], Path]


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """A store of the named file system, mounted once for the whole session.

    Each call gives a fresh directory in it.
    """
    scratch = tmp_path_factory.mktemp("stores")
    mounted: dict[str, Path] = {}
    with ExitStack() as stack:

        def store(fs: str) -> Path:
            if fs not in mounted:
                missing = mounts.missing_tools(fs)
                if missing:
                    pytest.skip(f"no {fs} store: {missing}")
                mounted[fs] = stack.enter_context(mounts.loop_store(fs, scratch))
            return Path(tempfile.mkdtemp(dir=mounted[fs]))

        yield store


@pytest.fixture(scope="session")
def newest_e2fsprogs_or_reason() -> judge.E2fsprogs | str:
    """The newest e2fsprogs, or why it is not to be had."""
    try:
        commands = newest_e2fsprogs.commands()
    except newest_e2fsprogs.UnavailableError as error:
        return str(error)
    return judge.E2fsprogs(
        judge.version_of(commands["e2fsck"]), {name: commands[name] for name in judge.TOOLS}
    )


@pytest.fixture(scope="session")
def releases(newest_e2fsprogs_or_reason: judge.E2fsprogs | str) -> list[judge.E2fsprogs]:
    """All releases of e2fsprogs that are at hand."""
    found = [judge.installed(), newest_e2fsprogs_or_reason]
    return [tools for tools in found if isinstance(tools, judge.E2fsprogs)]


class Judge(Protocol):
    """See ``judge_image``."""

    def __call__(self, image: Path, *, but_for: str | None = None) -> None: ...


@pytest.fixture(scope="session")
def tools() -> judge.E2fsprogs:
    """The machine's own e2fsprogs."""
    found = judge.installed()
    if found is None:
        pytest.skip("e2fsprogs is not installed")
    return found


@pytest.fixture(scope="session")
def judge_image(releases: list[judge.E2fsprogs]) -> Judge:
    """Fails the test if any e2fsprogs has any complaint about an image.

    Both the machine's release and the newest are asked, and layermelt's own
    check. test_e2fsck.py skips loudly where one of them is missing.
    """

    def ask(image: Path, *, but_for: str | None = None) -> None:
        found = [line for tools in releases for line in judge.complaints(image, tools, but_for=but_for)]
        found += judge.own_complaints(image, but_for=but_for)
        assert not found, "\n".join([f"{image}:", *found])

    return ask


@pytest.fixture(scope="session")
def oci2rootfs() -> Path:
    """The program oci2rootfs, of the pinned version."""
    program = Path(__file__).resolve().parents[2] / ".cache/peers/bin/oci2rootfs"
    if not os.access(program, os.X_OK):
        pytest.skip("no oci2rootfs: benches/peers/install.sh .cache/peers oci2rootfs gets it from crates.io")
    return program
