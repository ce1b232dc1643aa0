"""A real dockerd builds a real image; ours must be what the kernel shows of it.

The base is made of Debian's own packages, because no registry can be counted on.
The same Dockerfile goes through the classic builder, whose layers come out of
tars, and through BuildKit, whose layers are as the kernel wrote them.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.oracle import mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.real import apt, dockerd, store

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.slow]

CONTEXT = Path(__file__).resolve().parent / "docker"
CACHE = Path(__file__).resolve().parents[2] / ".cache"

#: Beyond Debian's required packages: what the Dockerfile calls.
TOOLS = ["libcap2-bin"]
#: Many small files.
DATA = ["ruby3.1-doc", "python3-django", "cmake-data"]

#: What the issue asks of the image.
LAYERS_AT_LEAST = 5
FILES_AT_LEAST = 20_000


@dataclass(frozen=True)
class Built:
    """An image that dockerd built."""

    name: str
    builder: str
    #: The layers' `diff` directories as dockerd names them, base first.
    diffs: tuple[Path, ...]

    @property
    def chain(self) -> Path:
        """The chain directory."""
        return self.diffs[-1].parent


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dockerd.Dockerd]:
    """A private dockerd with the base image loaded."""
    lacking = dockerd.missing() or ", ".join(apt.missing_tools())
    if lacking:
        pytest.skip(f"no Docker: {lacking} is missing")
    scratch = tmp_path_factory.mktemp("docker")
    try:
        make_base(scratch)
    except apt.AptError as error:
        pytest.skip(f"no packages for the base image: {error}")
    with dockerd.running(scratch / "daemon") as running:
        running.docker("import", "-", "layermelt-test-base", input_file=scratch / "base.tar")
        yield running


def make_base(scratch: Path) -> None:
    """`base.tar`, Debian's required packages, and `context/`, the build's."""
    archive = apt.Archive(CACHE / "apt")
    archive.update()
    required = archive.resolve([*archive.packages_of_priority(["required"]), *TOOLS])
    newest = {name: found[-1] for name, found in archive.candidates([*required, *DATA]).items()}
    files = archive.fetch(list(newest.values()))
    maker = store.ChainMaker(scratch / "base", store.probe_marks(scratch))
    with maker.layer("base"):
        maker.merged_usr()
        for name in required:
            maker.install(name, files[newest[name]])
        # What the packages' own scripts would make.
        for name in ("passwd", "group"):
            master = maker.layers[0].diff / f"usr/share/base-passwd/{name}.master"
            maker.write(f"etc/{name}", master.read_bytes())
        maker.symlink("usr/bin/sh", "dash")
        for folder in ("tmp", "proc", "sys", "dev", "run", "root", "home"):
            maker.make_directory(folder)
    subprocess.run(["tar", "-C", str(maker.diffs[0]), "-cf", str(scratch / "base.tar"), "."], check=True)
    data = store.ChainMaker(scratch / "data", store.probe_marks(scratch))
    with data.layer("data"):
        for name in DATA:
            data.install(name, files[newest[name]])
    context = scratch / "context"
    context.mkdir()
    (context / "Dockerfile").write_text((CONTEXT / "Dockerfile").read_text())
    (data.diffs[0] / "usr").rename(context / "data")
    (context / "app").mkdir()
    (context / "app" / "run").write_text("#!/bin/sh\nexec cat\n")
    (context / "app" / "run").chmod(0o755)


Build = Callable[[str], Built]


@pytest.fixture(scope="module")
def build(daemon: dockerd.Dockerd) -> Build:
    """Builds the Dockerfile by a builder, once for all tests."""
    done: dict[str, Built] = {}

    def make(builder: str) -> Built:
        if builder not in done:
            name = f"layermelt-test:{builder}"
            context = daemon.folder.parent / "context"
            daemon.docker(
                "build", "--network", "host", "-t", name, str(context), buildkit=builder == "buildkit"
            )
            inspected = json.loads(daemon.docker("image", "inspect", name).stdout)[0]
            graph = inspected["GraphDriver"]["Data"]
            diffs = [graph["UpperDir"], *graph.get("LowerDir", "").split(":")]
            built = Built(name, builder, tuple(Path(path) for path in reversed(diffs)))
            assert len(built.diffs) == len(inspected["RootFS"]["Layers"])
            done[builder] = built
        return done[builder]

    return make


BUILDERS = ["classic", "buildkit"]


@pytest.mark.parametrize("builder", BUILDERS)
def test_image_by_name_and_by_chain_is_what_the_kernel_shows(
    builder: str,
    build: Build,
    daemon: dockerd.Dockerd,
    tmp_path: Path,
    judge_image: Callable[[Path], None],
) -> None:
    built = build(builder)
    with mounts.overlay(built.diffs) as merged:
        kernel_view = dump(merged)
    assert len(built.diffs) >= LAYERS_AT_LEAST
    assert sum(entry.kind == "file" for entry in kernel_view.entries.values()) >= FILES_AT_LEAST
    assert kernel_view.refused == {}

    by_name = tmp_path / "by-name.ext4"
    by_chain = tmp_path / "by-chain.ext4"
    for source, output in ((f"docker:{built.name}", by_name), (str(built.chain), by_chain)):
        root = ["--docker-root", str(daemon.data_root)] if source.startswith("docker:") else []
        done = product.run(product.command("build", source, *root, "-o", output, "--no-sync"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(output)
        judge_image(output)
        with mounts.image(output) as mounted:
            different = differences(kernel_view, dump(mounted))
        assert not different, f"{source}: {report(different)}"
    same = subprocess.run(["cmp", by_name, by_chain], capture_output=True, text=True, check=False)
    assert same.returncode == 0, same.stdout


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_image_has_what_it_is_meant_to_test(builder: str, build: Build) -> None:
    """Marks of each kind lie in the layers, or the test above would show nothing."""
    built = build(builder)
    whiteouts = opaque = 0
    for diff in built.diffs:
        for folder, folders, names in os.walk(os.fsencode(diff)):
            for name in names:
                info = os.lstat(os.path.join(folder, name))
                whiteouts += stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
            for name in folders:
                path = os.path.join(folder, name)
                if not os.path.islink(path) and "trusted.overlay.opaque" in os.listxattr(path):
                    opaque += 1
    assert whiteouts >= 5
    assert opaque >= 4
    listen = next(
        diff / "srv/bin/listen" for diff in reversed(built.diffs) if (diff / "srv/bin/listen").exists()
    )
    assert "security.capability" in os.listxattr(listen)
    assert (built.diffs[2] / "srv/app/d").stat().st_nlink == 3
    written_by_kernel = "trusted.overlay.origin" in os.listxattr(built.diffs[3] / "srv")
    assert written_by_kernel == (builder == "buildkit")


def test_no_daemon_need_run(build: Build, daemon: dockerd.Dockerd, tmp_path: Path) -> None:
    built = build("classic")
    output = tmp_path / "image.ext4"
    command = product.command(
        "build", f"docker:{built.name}", "--docker-root", daemon.data_root, "-o", output, "--no-sync"
    )
    running = product.run(command)
    assert running.returncode == 0, running.stderr
    with_daemon = output.read_bytes()
    daemon.stop()
    try:
        stopped = product.run(command)
        assert stopped.returncode == 0, stopped.stderr
        assert output.read_bytes() == with_daemon
    finally:
        daemon.start()


def test_an_unknown_image_is_named(daemon: dockerd.Dockerd, tmp_path: Path) -> None:
    output = tmp_path / "image.ext4"
    done = product.run(
        product.command("build", "docker:no-such:tag", "--docker-root", daemon.data_root, "-o", output)
    )
    assert done.returncode != 0
    assert "no-such:tag" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
