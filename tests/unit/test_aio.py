"""The coroutines: the same results, a free event loop, and nothing left of what was cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import layermelt
from layermelt import Settings, aio, cloning, digests, errors
from unit.test_engines import alive, await_end

MIB = 1 << 20


@pytest.fixture
def large(layer: Path) -> Path:
    """A layer that takes a while."""
    for number in range(24):
        (layer / f"large{number}").write_bytes(os.urandom(16 * MIB))
    return layer


def test_every_long_function_is_here() -> None:
    """What can tell its progress can take long."""
    long = set()
    for home in (layermelt, digests, cloning):
        for name in home.__all__:
            function = getattr(home, name)
            if inspect.isfunction(function) and "progress" in inspect.signature(function).parameters:
                long.add(name)
    assert set(aio.__all__) == long


def test_the_same_results(layer: Path, overlay2: Path, agent: Path, tmp_path: Path, target: Path) -> None:
    settings = Settings(cache_dir=os.fspath(tmp_path / "cache"), agent=os.fspath(agent), agent_check=False)

    async def main() -> None:
        result = await aio.build_rootfs(None, target, layers=[layer])
        assert result.path == target
        assert (await aio.inspect_source(None, layers=[layer])).entries == 3
        assert await aio.layer_digest(layer) == digests.layer_digest(layer)
        assert await aio.chain_digest(None, layers=[layer]) == digests.chain_digest(None, layers=[layer])
        assert await aio.stat_fingerprint(None, layers=[layer]) == digests.stat_fingerprint(
            None, layers=[layer]
        )
        assert await aio.file_digest(target) == digests.file_digest(target)
        assert await aio.check_image(target, deep=True) == layermelt.check_image(target, deep=True)
        assert (await aio.diff_trees(target, target)).equal
        clone = await aio.clone_image(target, tmp_path / "clone.ext4")
        assert clone.path.read_bytes() == target.read_bytes()
        assert (await aio.grow_image(clone.path, "+64M")).new.size > result.size
        image = await aio.convert_layer_to_rootfs(overlay2, settings=settings)
        assert image == layermelt.convert_layer_to_rootfs(overlay2, settings=settings)
        with pytest.raises(errors.LayerNotFoundError):
            await aio.convert_layer_to_rootfs(tmp_path / "nope", settings=settings)

    asyncio.run(main())


def test_the_event_loop_is_free(large: Path, target: Path) -> None:
    stalls: list[float] = []

    async def tick() -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            stalls.append(now - before)
            before = now

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        await aio.build_rootfs(None, target, layers=[large], progress=lambda *_: None)
        ticking.cancel()

    asyncio.run(main())
    print(f"longest stall of the event loop: {max(stalls) * 1000:.1f} ms")
    assert len(stalls) > 20
    # A build of this size takes some hundred ms; the machine itself may be busy for some.
    assert max(stalls) < 0.1


def test_progress_comes_in_the_loops_thread(large: Path, target: Path) -> None:
    import threading

    told: list[tuple[str, int]] = []

    async def main() -> None:
        await aio.build_rootfs(
            None,
            target,
            layers=[large],
            progress=lambda phase, *_: told.append((phase, threading.get_ident())),
        )

    asyncio.run(main())
    assert "write" in {phase for phase, _ in told}
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_what_progress_raises_ends_the_work(large: Path, target: Path) -> None:
    def fail(phase: str, _done: int, _total: int) -> None:
        if phase == "write":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(aio.build_rootfs(None, target, layers=[large], progress=fail))  # type: ignore[arg-type]
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize("times", [1, 3])
def test_cancelling_stops_the_work_and_leaves_nothing(large: Path, target: Path, times: int) -> None:
    async def main() -> float:
        writing = asyncio.Event()
        task = asyncio.ensure_future(
            aio.build_rootfs(
                None,
                target,
                layers=[large],
                progress=lambda phase, *_: writing.set() if phase == "write" else None,
            )
        )
        await writing.wait()
        since = time.perf_counter()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        # It is over when the task is: no thread writes any more.
        assert os.listdir(target.parent) == []
        return time.perf_counter() - since

    assert asyncio.run(main()) < 5
    assert os.listdir(target.parent) == []


def test_cancelling_kills_the_engine_with_its_children(overlay2: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin/oci2rootfs"
    program.parent.mkdir()
    told = tmp_path / "processes"
    program.write_text(f"#!/bin/sh\nsleep 1000 &\necho $$ $! > {told}.new && mv {told}.new {told}\nwait\n")
    program.chmod(0o755)
    cache = tmp_path / "cache"
    settings = Settings.legacy(
        cache_dir=os.fspath(cache), agent="/bin/sh", oci2rootfs=os.fspath(program), agent_check=False
    )

    async def main() -> list[int]:
        task = asyncio.ensure_future(aio.convert_layer_to_rootfs(overlay2, settings=settings))
        while not told.exists():
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)
        processes = [int(number) for number in told.read_text().split()]
        assert all(map(alive, processes))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return processes

    processes = asyncio.run(main())
    await_end(processes, 1)
    assert os.listdir(cache) == []


def test_one_that_has_not_begun_is_cancelled(large: Path, target: Path) -> None:
    """There are fewer threads than tasks."""

    async def main() -> None:
        tasks = [
            asyncio.ensure_future(
                aio.build_rootfs(None, target.with_name(f"{number}.ext4"), layers=[large], sync=False)
            )
            for number in range(60)
        ]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(main())
    assert os.listdir(target.parent) == []


def test_a_child_by_fork_has_threads_of_its_own(layer: Path, target: Path) -> None:
    """The parent's, whom its executor takes for idle, are not in it."""
    program = (
        "import asyncio, os, sys; from layermelt import aio\n"
        "layer, first, second = sys.argv[1:]\n"
        "build = lambda target: asyncio.run(aio.build_rootfs(None, target, layers=[layer], sync=False))\n"
        "build(first)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    build(second); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    second = target.with_name("second.ext4")
    words = [sys.executable, "-c", program, *map(os.fspath, (layer, target, second))]
    # A child that waits for ever is killed with its parent.
    with subprocess.Popen(words, start_new_session=True) as process:
        try:
            assert process.wait(60) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert second.read_bytes() == target.read_bytes()


def test_a_loop_that_is_closed_stops_its_work(large: Path, target: Path) -> None:
    """Whoever closes it did not wait; the process does, at its end, for all threads."""
    loop = asyncio.new_event_loop()

    async def until_it_writes() -> None:
        while not os.listdir(target.parent):
            await asyncio.sleep(0.001)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build = aio.build_rootfs(None, target, layers=[large])
        task: asyncio.Task[layermelt.BuildResult] = loop.create_task(build)  # type: ignore[arg-type]
        loop.run_until_complete(until_it_writes())
        loop.close()
        end = time.monotonic() + 20
        while os.listdir(target.parent):
            assert not target.exists(), "it was not stopped"
            assert time.monotonic() < end
            time.sleep(0.01)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
