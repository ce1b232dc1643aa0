"""The functions that take long, as coroutines.

Each has the arguments of the function of its name in `layermelt`. The work is done in a thread,
and the event loop is free meanwhile. When a task is cancelled, its work is stopped, with every
process it started, and has cleaned up before the cancellation goes on: nothing of it is left.
`progress` is called in the event loop's thread, and ends the work with what it raises.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from layermelt import builder, cloning, convert, differ, digests, growing, images
from layermelt.inject import files as injecting

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from layermelt.options import Progress

    _P = ParamSpec("_P")

__all__ = [
    "build_rootfs",
    "chain_digest",
    "check_image",
    "clone_image",
    "convert_layer_to_rootfs",
    "diff_trees",
    "file_digest",
    "grow_image",
    "inject_files",
    "inspect_source",
    "layer_digest",
    "stat_fingerprint",
]

_T = TypeVar("_T")


class _Stopped(BaseException):
    """Ends the work of a task that was cancelled."""


class _Watch:
    """What the work's thread calls some 20 times a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop, progress: Progress | None) -> None:
        self._loop = loop
        self._progress = progress
        self._told = threading.Event()
        self._told.set()
        self.stopped = threading.Event()
        self.raised: BaseException | None = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        if self.stopped.is_set() or self._loop.is_closed():
            raise _Stopped
        # A loop that is busy is not given a second call before it has come to the first.
        if self._progress is not None and self._told.is_set():
            self._told.clear()
            self._loop.call_soon_threadsafe(self._tell, phase, done, total)

    def _tell(self, phase: str, done: int, total: int) -> None:
        try:
            if self._progress is not None and not self.stopped.is_set():
                self._progress(phase, done, total)
        except BaseException as error:  # noqa: BLE001 - raised where the work is awaited
            self.raised = error
            self.stopped.set()
        finally:
            self._told.set()


async def _run(function: Callable[..., _T], progress: Progress | None, *args: object, **named: object) -> _T:
    watch = _Watch(asyncio.get_running_loop(), progress)
    context = contextvars.copy_context()
    work = _executor().submit(functools.partial(context.run, function, *args, progress=watch, **named))
    done = asyncio.wrap_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError as error:
            # However often it is cancelled: the work has to end first, unless it has not begun.
            # (`done` itself must not be cancelled: it would not wait for a thread that runs.)
            cancelled = error
            watch.stopped.set()
            work.cancel()
    failure = None if done.cancelled() else done.exception()
    if cancelled is not None:
        # Also when it was done a moment before: the caller does not wait for it any more.
        raise cancelled
    if isinstance(failure, _Stopped) and watch.raised is not None:
        raise watch.raised
    return done.result()


@functools.cache
def _executor() -> ThreadPoolExecutor:
    """Threads of our own: the loop's own ones may be busy, and tell nothing of what waits for them."""
    return ThreadPoolExecutor(thread_name_prefix="layermelt")


# A child process by fork has none of the threads that its parent's executor counts on.
os.register_at_fork(after_in_child=_executor.cache_clear)


def _coroutine(function: Callable[_P, _T]) -> Callable[_P, Awaitable[_T]]:
    @functools.wraps(function)
    async def coroutine(*args: _P.args, **named: _P.kwargs) -> _T:
        progress = named.pop("progress", None)
        return await _run(function, progress, *args, **named)  # type: ignore[arg-type]

    return coroutine


build_rootfs = _coroutine(builder.build_rootfs)
chain_digest = _coroutine(digests.chain_digest)
check_image = _coroutine(images.check_image)
clone_image = _coroutine(cloning.clone_image)
convert_layer_to_rootfs = _coroutine(convert.convert_layer_to_rootfs)
diff_trees = _coroutine(differ.diff_trees)
file_digest = _coroutine(digests.file_digest)
grow_image = _coroutine(growing.grow_image)
inject_files = _coroutine(injecting.inject_files)
inspect_source = _coroutine(builder.inspect_source)
layer_digest = _coroutine(digests.layer_digest)
stat_fingerprint = _coroutine(digests.stat_fingerprint)
