"""The external program ``oci2rootfs``, run as agents run it: ``oci2rootfs LAYER --output TMP``."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
from collections.abc import Sequence

from layermelt import digests, helpers, images, settings
from layermelt.errors import (
    EngineError,
    EngineExitError,
    EngineNotExecutableError,
    EngineNotFoundError,
    EngineOutputError,
    EngineSignalError,
    EngineSpawnError,
    EngineTimeoutError,
    InvalidOptionError,
)
from layermelt.helpers import StopCheck

__all__ = ["ENVIRONMENT", "FORMER_PLACE", "Oci2RootfsEngine"]

#: The environment variable that names the program.
ENVIRONMENT = settings.OCI2ROOTFS_VARIABLE
#: Where agents keep it.
FORMER_PLACE = settings.FORMER_OCI2ROOTFS

#: So many of an image's faults are told.
_TOLD = 10

_SUPERVISOR = os.path.join(os.path.dirname(__file__), "supervisor.py")


class Oci2RootfsEngine:
    """Runs the program and judges what it did.

    Args:
        program: Its path. `None`: what ``LAYERMELT_OCI2ROOTFS`` names, else the one on PATH,
            else the one at ``/arcbox/bin/oci2rootfs``.
        arguments: What it is given after ``LAYER --output TMP``.
    """

    name = "oci2rootfs"

    def __init__(self, *, program: str | None = None, arguments: Sequence[str] = ()) -> None:
        self._program = program
        self._arguments = tuple(arguments)
        if any("\0" in argument for argument in self._arguments):
            raise InvalidOptionError("invalid argument for oci2rootfs: it cannot hold a NUL byte")

    def find(self) -> str:
        """The program's path.

        Raises:
            EngineNotFoundError: There is none.
            EngineNotExecutableError: It may not be executed.
        """
        named = self._program or os.environ.get(ENVIRONMENT)
        if named:
            return _demand_executable(os.path.abspath(named), named)
        found = shutil.which(self.name)
        if found is not None:
            return os.path.abspath(found)
        if os.path.lexists(FORMER_PLACE):
            return _demand_executable(FORMER_PLACE, FORMER_PLACE)
        raise EngineNotFoundError(
            f"oci2rootfs: there is no such program, neither on PATH nor at {FORMER_PLACE}; install it "
            f"(cargo install oci2rootfs-cli), name it in {ENVIRONMENT}, or use the native engine",
            path=self.name,
        )

    def build(
        self,
        layer: str,
        output: str,
        *,
        timeout: float | None = None,
        should_stop: StopCheck | None = None,
    ) -> list[str]:
        """See `layermelt.engines.Engine`."""
        program = self.find()
        # A path is not to be taken for an option.
        named = os.path.join(".", layer) if layer.startswith("-") else layer
        command = [program, named, "--output", output, *self._arguments]
        try:
            ended = helpers.run(
                _SUPERVISOR,
                command,
                timeout=timeout,
                should_stop=should_stop,
                stop_signal=signal.SIGTERM,
            )
        except helpers.HelperTimeoutError:
            raise EngineTimeoutError(
                f"{program}: took longer than {timeout:g} s for {layer} and was killed; allow more time",
                path=program,
            ) from None
        except helpers.HelperStartError as error:
            raise EngineSpawnError(
                f"{program}: what is to watch over it cannot be started: {error}",
                path=program,
                errno=error.errno,
            ) from None
        _demand_success(program, ended)
        return self._judge(program, output, should_stop)

    def fingerprint(self) -> str:
        """See `layermelt.engines.Engine`: the digest of the program's file, and its arguments.

        Of a script, or a program with shared libraries, it is that file alone.
        """
        digest = digests.file_digest(self.find())
        # JSON: one line, and no two lists of arguments look alike.
        return f"{self.name} {digest} {json.dumps(self._arguments)}"

    def _judge(self, program: str, output: str, should_stop: StopCheck | None) -> list[str]:
        """What is wrong with the image; an error when it is none."""
        try:
            mode = os.lstat(output).st_mode
        except OSError:
            mode = 0
        if not stat.S_ISREG(mode) or not images.has_ext4_magic(output):
            what = "no file" if mode == 0 else "no ext4 image"
            raise EngineOutputError(
                f"{program}: exited with 0, but there is {what} at {output}; is it an oci2rootfs?",
                path=output,
            )
        report = images.check_image(output)
        grave = images.grave_problems(report)
        if grave:
            listed = "\n  ".join(problem.text for problem in grave[:10])
            raise EngineOutputError(
                f"{program}: exited with 0, but its image cannot be used:\n  {listed}", path=output
            )
        # What e2fsck would find as well: oci2rootfs 0.3.0 leaves the inodes of replaced directories.
        progress = None if should_stop is None else (lambda *_: should_stop())
        deep = images.check_image(output, deep=True, progress=progress)
        found = [f"the image of {self.name} has a fault: {problem.text}" for problem in deep.problems[:_TOLD]]
        more = len(deep.problems) - len(found) + deep.more_problems
        if more:
            found.append(f"the image of {self.name} has {more:,} further faults (layermelt check --deep)")
        return found


def _demand_executable(path: str, named: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise EngineNotFoundError(
            f"{named}: there is no such program; install oci2rootfs there, correct the path, or use the "
            "native engine",
            path=named,
        ) from None
    except OSError as error:
        raise _cannot_start(named, error.errno or 0) from None
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        what = "is not executable; chmod +x it" if stat.S_ISREG(mode) else "is no program; name another one"
        raise EngineNotExecutableError(f"{named}: {what}, or use the native engine", path=named)
    return path


def _cannot_start(program: str, number: int) -> EngineError:
    if number == errno.ENOENT and os.path.lexists(program):
        # What execve answers when a script's, or a dynamic program's, interpreter is missing.
        reason = "its interpreter or dynamic linker is missing"
    elif number == errno.ENOEXEC:
        reason = "it is no program of this machine's kind (Exec format error)"
    else:
        reason = os.strerror(number)
    return EngineSpawnError(f"{program}: cannot be started: {reason}", path=program, errno=number)


def _demand_success(program: str, ended: helpers.Ended) -> None:
    kind, _, text = ended.status.decode("ascii", "replace").partition(" ")
    number = int(text) if text.isdigit() else 0
    if kind == "exit" and number == 0:
        return
    if kind == "spawn":
        raise _cannot_start(program, number)
    said = helpers.last_lines(ended.stderr) or helpers.last_lines(ended.stdout)
    listed = "; its last words:\n  " + said.replace("\n", "\n  ") if said else "; it said nothing"
    if kind == "exit":
        raise EngineExitError(
            f"{program}: ended with exit code {number}{listed}", path=program, exit_code=number, stderr=said
        )
    if kind == "signal":
        what = f"{_signal_name(number)}{_signal_hint(number)}"
    else:
        number, what = signal.SIGKILL, "a signal, or what watches over it was"
    raise EngineSignalError(
        f"{program}: was killed by {what}{listed}", path=program, signal=number, stderr=said
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _signal_hint(number: int) -> str:
    if number == signal.SIGKILL:
        return " (out of memory? the kernel's log says so)"
    if number == signal.SIGXFSZ:
        return " (a limit on the size of files: ulimit -f)"
    return ""
