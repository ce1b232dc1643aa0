"""Runs one program so that nothing of it is left: neither it nor what it starts.

    supervisor.py PARENT STATUS PROGRAM ARGUMENTS...

The program becomes the leader of a session of its own and is killed by the kernel when the
supervisor dies. The supervisor is told by SIGTERM when PARENT dies or wants an end. When the
program has ended, or is to end, its process group is killed, and whatever left that group and
lost its parent was inherited by the supervisor (a "child subreaper") and is killed as well.

What happened is written to the descriptor STATUS: ``exit N``, ``signal N`` or ``spawn ERRNO``.
It is a program of its own and imports nothing of layermelt: see `layermelt.helpers`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from typing import NoReturn

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

#: How long killed processes may take to end: one that waits for a dead disk never does.
PATIENCE = 5.0
#: Python ignores these; a program expects their default.
RESTORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGCHLD)

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main() -> int:
    """Supervises; the exit code says nothing."""
    parent, status = int(sys.argv[1]), int(sys.argv[2])
    command = [os.fsencode(word) for word in sys.argv[3:]]
    os.set_inheritable(status, False)  # noqa: FBT003 - its name says it
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    # From here on they are asked for, and none is lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel was asked to tell.
        return 1
    started = _start(command)
    if isinstance(started, OSError):
        _tell(status, f"spawn {started.errno}")
        return 0
    said = _wait(started, awaited)
    _sweep(started)
    if said:
        _tell(status, said)
    return 0


def _start(command: list[bytes]) -> int | OSError:
    """The new process, or why there is none."""
    failed, telling = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        return error
    if child == 0:
        _become(command, telling)
    os.close(telling)
    # Closed by a successful exec, so that there is nothing to be read then.
    number = os.read(failed, 16)
    os.close(failed)
    if not number:
        return child
    os.waitpid(child, 0)
    return OSError(int(number), "")


def _become(command: list[bytes], telling: int) -> NoReturn:
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        for number in RESTORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execv(command[0], command)  # noqa: S606 - without a shell is what is wanted
    except OSError as error:
        os.write(telling, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


def _wait(child: int, awaited: set[signal.Signals]) -> str:
    """Waits for the program's end, or for the wish that it end. Its process is not reaped."""
    while True:
        # One SIGCHLD may stand for many, so ask first.
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is not None:
            kind = "exit" if ended.si_code == os.CLD_EXITED else "signal"
            return f"{kind} {ended.si_status}"
        if signal.sigwaitinfo(awaited).si_signo == signal.SIGTERM:
            return ""
        _reap_others(child)


def _reap_others(child: int) -> None:
    """Orphans that were inherited and have ended."""
    for process in _children():
        if process != child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)


def _sweep(child: int) -> None:
    """Kills what is left, until nothing is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # Not reaped yet, so that nobody else can have this number.
        os.killpg(child, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        # Each one's children become ours when it dies, so ask anew every time.
        for process in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _children() -> list[int]:
    """The processes whose parent we are."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(number) for number in file.read().split()]
    except OSError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return [process for process in _processes() if _parent(process) == os.getpid()]


def _processes() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _parent(process: int) -> int:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # "pid (name) state ppid ...", and a name may hold anything.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _tell(status: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(status, text.encode())


if __name__ == "__main__":
    sys.exit(main())
