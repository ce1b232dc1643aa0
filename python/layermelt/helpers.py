"""Runs the package's own helper programs: short scripts that die with us.

What must not outlive this process, or must not happen in it (a mount namespace, another
program's children), is done by a script of its own under the same Python. It is started
isolated (``-I -S``: no site packages, nothing of the environment's ``PYTHON*``), tells its
result on a pipe, and asks the kernel to be told when the thread that started it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "Ended",
    "HelperStartError",
    "HelperTimeoutError",
    "StopCheck",
    "above_standard",
    "last_lines",
    "run",
]

#: Called now and then; what it raises ends the work and is raised to the caller.
StopCheck = Callable[[], object]

#: How long a wish to stop may go unnoticed.
_POLL = 0.05
#: How much of a program's output is kept: its end.
_KEPT = 64 << 10
#: How long a helper may take to clean up before it is killed.
_GRACE = 10.0


class HelperStartError(Exception):
    """The helper cannot be started, and why.

    No `OSError`, which whatever the caller's `should_stop` raises may be.

    Attributes:
        errno: The system's reason; 0 where it is another one.
    """

    def __init__(self, reason: str, number: int = 0) -> None:
        super().__init__(reason)
        self.errno = number


class HelperTimeoutError(Exception):
    """The helper took longer than allowed; it and all it started are gone."""


@dataclass(frozen=True)
class Ended:
    """How a helper ended.

    Attributes:
        returncode: As `subprocess` has it.
        status: What it told on its pipe; empty when it was killed.
        stdout: The end of what it, and what it started, wrote to stdout.
        stderr: The same of stderr.
    """

    returncode: int
    status: bytes
    stdout: bytes
    stderr: bytes


def run(
    script: str,
    arguments: Sequence[str | bytes],
    *,
    pass_fds: Sequence[int] = (),
    cwd: str | None = None,
    timeout: float | None = None,
    should_stop: StopCheck | None = None,
    stop_signal: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Runs ``script PARENT STATUS ARGUMENTS...`` to its end.

    Args:
        script: Path of the script.
        arguments: What follows our process id and the number of the status pipe.
        pass_fds: File descriptors that it inherits, under their numbers (`above_standard`).
        cwd: Its working directory; `None`: ours.
        timeout: Seconds it may take.
        should_stop: Called some 20 times a second; what it raises is raised here.
        stop_signal: What ends it before its time. Anything but SIGKILL lets it clean up.

    Raises:
        HelperStartError: It cannot be started.
        HelperTimeoutError: It took longer than `timeout`.
    """
    limit = None if timeout is None else time.monotonic() + timeout
    process, status = _start(script, arguments, pass_fds, cwd)
    try:
        with contextlib.closing(_Pipes(process, status)) as pipes:
            while not pipes.ended:
                pipes.read(_POLL)
                if should_stop is not None:
                    should_stop()
                if limit is not None and time.monotonic() > limit and not pipes.ended:
                    raise HelperTimeoutError
            # It told its status, or is dead: what it has to do yet is to end.
            process.wait(_GRACE)
            pipes.read(0)
            return Ended(process.returncode, pipes.text("status"), pipes.text("stdout"), pipes.text("stderr"))
    finally:
        _end(process, stop_signal)


def above_standard(fd: int) -> int:
    """The same open file under a number that is none of the standard streams'.

    A process that was started without those gives their numbers to what it opens, and a helper
    gets streams of its own in their place.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def last_lines(output: bytes, count: int = 10) -> str:
    """The last lines of a program's output, as text without colours."""
    text = output.decode("utf-8", "backslashreplace")
    while (begin := text.find("\x1b[")) >= 0:
        # ECMA-48: a control sequence ends with the first byte of 0x40 to 0x7e.
        end = begin + 2
        while end < len(text) and not "@" <= text[end] <= "~":
            end += 1
        text = text[:begin] + text[end + 1 :]
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def _start(
    script: str, arguments: Sequence[str | bytes], pass_fds: Sequence[int], cwd: str | None
) -> tuple[subprocess.Popen[bytes], int]:
    """The helper, and the end of the status pipe that is read."""
    if not sys.executable:
        raise HelperStartError("there is no Python program for it (sys.executable is empty)")
    with contextlib.ExitStack() as stack:
        try:
            status, inherited = os.pipe()
            with contextlib.ExitStack() as ours:
                ours.callback(os.close, status)
                inherited = above_standard(inherited)
                stack.callback(os.close, inherited)
                command = [sys.executable, "-I", "-S", script, str(os.getpid()), str(inherited)]
                process = subprocess.Popen(  # noqa: S603 - our own script, no shell
                    [*command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(inherited, *pass_fds),
                    cwd=cwd,
                    start_new_session=True,
                    bufsize=0,
                )
                ours.pop_all()
        except OSError as error:
            raise HelperStartError(error.strerror or str(error), error.errno or 0) from None
    return process, status


class _Pipes:
    """Reads a helper's three pipes and keeps the end of each."""

    def __init__(self, process: subprocess.Popen[bytes], status: int) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.ended = False
        self._status = status
        self._kept: dict[str, bytearray] = {}
        self._selector = selectors.DefaultSelector()
        self._streams = (process.stdout, process.stderr)
        pipes = {"status": status, "stdout": process.stdout.fileno(), "stderr": process.stderr.fileno()}
        for name, fd in pipes.items():
            os.set_blocking(fd, False)
            self._kept[name] = bytearray()
            self._selector.register(fd, selectors.EVENT_READ, name)

    def read(self, wait: float) -> None:
        """Reads what there is, after at most that many seconds of waiting."""
        for key, _ in self._selector.select(wait):
            kept = self._kept[key.data]
            try:
                data = os.read(key.fd, _KEPT)
            except BlockingIOError:
                continue
            if not data:
                self._selector.unregister(key.fd)
                # Only the helper holds the other end of this one.
                self.ended = self.ended or key.data == "status"
                continue
            kept += data
            if len(kept) > 2 * _KEPT:
                del kept[:-_KEPT]

    def text(self, name: str) -> bytes:
        return bytes(self._kept[name][-_KEPT:])

    def close(self) -> None:
        self._selector.close()
        os.close(self._status)
        for stream in self._streams:
            stream.close()


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Ends a helper, if it has not ended, and waits for it: no zombie is left."""
    if process.poll() is not None:
        return
    process.send_signal(number)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
