"""Runs programs and says what they cost; names the machine they ran on."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: The helpers of the integration tests: packages, stores, mounts, the oracle.
sys.path.insert(0, str(HERE.parent / "tests"))

REPORTS = HERE / "reports"


@dataclass(frozen=True)
class Run:
    """One run of one program."""

    seconds: float
    peak_bytes: int


@dataclass
class Series:
    """All runs of one program."""

    runs: list[Run] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds, the middle of all runs."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def spread(self) -> str:
        """The fastest and the slowest run."""
        seconds = [run.seconds for run in self.runs]
        return f"{min(seconds):.2f} to {max(seconds):.2f}"

    @property
    def peak_mib(self) -> float:
        """The largest resident set of all runs."""
        return max(run.peak_bytes for run in self.runs) / 2**20


class ProgramFailedError(RuntimeError):
    """A program of the race ended with an error."""


def run(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Run:
    """Runs a whole process, start to exit, and measures it.

    The peak is that of the process and of those it waited for.
    """
    if not Path(command[0]).exists():
        raise ProgramFailedError(f"{command[0]} does not exist")
    everything = {**os.environ, **(environment or {})}
    # An installed wheel has its bytecode; this would have it compiled in each run.
    everything.pop("PYTHONDONTWRITEBYTECODE", None)
    reading, writing = os.pipe()
    with open(reading, "rb") as told, log.open("wb") as output:
        stopwatch = [sys.executable, "-I", "-S", str(HERE / "stopwatch.py"), str(writing)]
        process = subprocess.Popen(
            [*stopwatch, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=everything,
            pass_fds=[writing],
        )
        os.close(writing)
        answer = told.read().split()
        process.wait()
    if process.returncode != 0:
        raise ProgramFailedError(f"{command[0]}: {log.read_text(errors='replace')[-2000:]}")
    status, seconds, peak = int(answer[0]), float(answer[1]), int(answer[2])
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise ProgramFailedError(f"{' '.join(command)}: status {code}\n{tail}")
    return Run(seconds, peak * 1024)


def machine(folder: Path) -> list[str]:
    """What a reader must know of the machine, as lines of a markdown list."""
    return [
        f"- layermelt: {commit()}",
        f"- CPU: {_cpu_model()}, {os.cpu_count()} cores",
        f"- Memory: {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        f"- Kernel: {platform.system()} {platform.release()} {platform.machine()}",
        f"- Load average before: {os.getloadavg()[0]:.1f}",
        f"- Layers and images on: {file_system(folder)}",
        f"- Python {platform.python_version()}, {_first_line(['mke2fs', '-V'])}",
    ]


def commit() -> str:
    """What is measured: the commit, and whether the tree had changes beyond it."""
    git = ["git", "-C", str(HERE.parent)]
    try:
        name = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        # The reports themselves are what a run changes.
        status = [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benches/reports"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "not from a clone, commit unknown"
    return f"commit {name.stdout.strip()}{' with changes' if changed else ''}"


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind = line.split()[:3]
        if Path(target) in [folder, *folder.parents] and len(target) >= len(best[0]):
            best = (target, kind)
    return best[1]


def settle() -> None:
    """Lets nobody pay for what another one left unwritten."""
    os.sync()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"no {command[0]}"
    return (done.stdout + done.stderr).strip().splitlines()[0]


def program(name: str) -> str | None:
    """The path of an installed program; /sbin is not on every user's path."""
    for folder in [*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]:
        candidate = Path(folder) / name
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return None


def layermelt() -> list[str]:
    """The command under test: the one installed beside this interpreter."""
    return [str(Path(sys.executable).parent / "layermelt")]
