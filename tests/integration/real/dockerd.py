"""A Docker daemon of our own: started for a test, stopped after it.

It has its own data root, socket and state, no network bridge and no iptables
rules, so that it does not meet a daemon that may be running already.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 60


def missing() -> str | None:
    """What is not there to run Docker with, or None."""
    if os.geteuid() != 0:
        return "root: dockerd mounts overlayfs"
    for program in ("dockerd", "docker"):
        if shutil.which(program, path=_path()) is None:
            return f"{program} (Debian: docker.io)"
    return None


def _path() -> str:
    # Debian's own client before another one: it speaks BuildKit without a plugin.
    return f"/usr/bin:/usr/sbin:{os.environ.get('PATH', '')}"


@dataclass
class Dockerd:
    """One daemon; it can be stopped and started again on the same data."""

    folder: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def data_root(self) -> Path:
        """What `--docker-root` takes."""
        return self.folder / "data"

    @property
    def _socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def log(self) -> str:
        """What the daemon said so far."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Starts the daemon and waits until it answers."""
        command = ["dockerd", "--storage-driver", "overlay2", "--bridge=none", "--iptables=false"]
        command += ["--ip6tables=false", "--host", f"unix://{self._socket}"]
        command += ["--data-root", str(self.data_root), "--exec-root", str(self.folder / "exec")]
        command += ["--pidfile", str(self.folder / "pid"), "--config-file", str(self.folder / "config")]
        (self.folder / "config").write_text("{}\n")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment()
            )
        deadline = time.monotonic() + START_SECONDS
        while self.docker("version", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"dockerd does not answer:\n{self.log[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends the daemon, and with it all that it mounted."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        # A daemon that was killed leaves mounts; a deeper one goes first.
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            target = line.split()[1].encode().decode("unicode_escape")
            if target.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", target], check=False)

    def docker(
        self, *arguments: str, check: bool = True, buildkit: bool = False, input_file: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs the client against this daemon."""
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(input_file.open("rb")) if input_file else subprocess.DEVNULL
            done = subprocess.run(
                ["docker", "--host", f"unix://{self._socket}", *arguments],
                stdin=source,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                env={**self._environment(), "DOCKER_BUILDKIT": "1" if buildkit else "0"},
                check=False,
            )
        if check and done.returncode != 0:
            said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.returncode}\n{said}")
        return done

    def _environment(self) -> dict[str, str]:
        # A client configuration of the user (contexts, proxies) is none of ours.
        home = {"HOME": str(self.folder), "DOCKER_CONFIG": str(self.folder / "client")}
        return {**os.environ, "PATH": _path(), "LC_ALL": "C", **home}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Dockerd]:
    """A daemon with its data below `folder`, which is removed in the end."""
    folder.mkdir(parents=True)
    daemon = Dockerd(folder)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(folder)
