"""Engines: each way in which another program fails is an error of its own, and nothing of it stays."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import layermelt
from layermelt import engines, errors, helpers
from layermelt.engines.oci2rootfs import ENVIRONMENT, Oci2RootfsEngine
from unit.stores import DockerRoot

Script = Callable[[str], str]


@pytest.fixture(autouse=True)
def no_program_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """A program that does what it is told; $2 of a build is --output, so $3 is the image."""

    def make(body: str) -> str:
        program = tmp_path / "bin" / "oci2rootfs"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        return os.fspath(program)

    return make


@pytest.fixture
def sound(layer: Path, tmp_path: Path) -> Path:
    """A sound image."""
    image = tmp_path / "sound.ext4"
    layermelt.build_rootfs(None, image, layers=[layer], size="min", sync=False)
    return image


@pytest.fixture
def chain(tmp_path: Path) -> str:
    """What engines are given; the fake ones do not look."""
    directory = tmp_path / "overlay2" / "top"
    (directory / "diff").mkdir(parents=True)
    (directory / "link").write_text("L")
    return os.fspath(directory)


def build(program: str, chain: str, target: Path, *arguments: str) -> list[str]:
    return engines.find_engine("oci2rootfs", oci2rootfs=program, engine_args=arguments).build(
        chain, os.fspath(target)
    )


def alive(process: int) -> bool:
    """Whether it runs: a zombie that its new parent has not seen yet does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def await_end(processes: Sequence[int], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while any(map(alive, processes)):
        assert time.monotonic() < end, f"still there: {[one for one in processes if alive(one)]}"
        time.sleep(0.01)


def await_numbers(file: Path, count: int) -> list[int]:
    """Process ids that a program wrote, a line each."""
    end = time.monotonic() + 20
    while True:
        lines = file.read_text().split() if file.exists() else []
        if len(lines) == count:
            return [int(line) for line in lines]
        assert time.monotonic() < end, f"{file} has {lines}"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def no_zombies() -> Iterator[None]:
    yield
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if children.exists():
        # Hypothesis and the like start none.
        assert children.read_text() == ""


def test_the_command_is_exactly_that_of_the_agents(
    script: Script, chain: str, target: Path, sound: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    program = script(f'printf "%s\\n" "$@" > {said}; pwd >> {said}; cp {sound} "$3"')
    assert build(program, chain, target) == []
    assert said.read_text().splitlines() == [chain, "--output", os.fspath(target), os.getcwd()]
    assert layermelt.check_image(target).sound

    assert build(program, chain, target, "--size", "2G") == []
    assert said.read_text().splitlines()[3:5] == ["--size", "2G"]


def test_an_empty_file_may_be_there(script: Script, chain: str, target: Path, sound: Path) -> None:
    target.touch()
    assert build(script(f'cp {sound} "$3"'), chain, target) == []


def test_a_path_is_no_option(
    script: Script, target: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = tmp_path / "said"
    build(script(f'echo "$1" > {said}; cp {sound} "$3"'), "--help", target)
    assert said.read_text() == "./--help\n"


def test_where_the_program_is_looked_for(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = script("true")
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", "/nonexistent")
    former = tmp_path / "former"
    monkeypatch.setattr("layermelt.engines.oci2rootfs.FORMER_PLACE", os.fspath(former))
    with pytest.raises(errors.EngineNotFoundError, match=r"nor at .*former.*LAYERMELT_OCI2ROOTFS"):
        Oci2RootfsEngine().find()
    former.symlink_to(other)
    assert Oci2RootfsEngine().find() == os.fspath(former)
    monkeypatch.setenv("PATH", os.path.dirname(on_path))
    assert Oci2RootfsEngine().find() == on_path
    monkeypatch.setenv(ENVIRONMENT, os.fspath(other))
    assert Oci2RootfsEngine().find() == os.fspath(other)
    assert Oci2RootfsEngine(program=on_path).find() == on_path


def test_not_there(chain: str, target: Path, tmp_path: Path) -> None:
    missing = os.fspath(tmp_path / "missing")
    with pytest.raises(errors.EngineNotFoundError, match="no such program") as caught:
        build(missing, chain, target)
    assert isinstance(caught.value, FileNotFoundError)
    assert (caught.value.path, caught.value.errno) == (missing, errno.ENOENT)


def test_not_executable(chain: str, target: Path, tmp_path: Path) -> None:
    program = tmp_path / "plain"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(errors.EngineNotExecutableError, match=r"chmod \+x") as caught:
        build(os.fspath(program), chain, target)
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(errors.EngineNotExecutableError, match="is no program"):
        build(os.fspath(tmp_path), chain, target)


def test_cannot_spawn(chain: str, target: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF of another world")
    program.chmod(0o755)
    with pytest.raises(errors.EngineSpawnError, match="Exec format error") as caught:
        build(os.fspath(program), chain, target)
    assert caught.value.errno == errno.ENOEXEC
    program.write_text("#!/nonexistent/interpreter\n")
    with pytest.raises(errors.EngineSpawnError, match="interpreter"):
        build(os.fspath(program), chain, target)


def test_cannot_spawn_the_supervisor(
    script: Script, chain: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(errors.EngineSpawnError):
        build(script("true"), chain, target)


def test_exit_code_with_the_last_lines(script: Script, chain: str, target: Path) -> None:
    body = "for i in $(seq 40); do echo line $i >&2; done; printf '\\033[31mred\\033[0m words\\n' >&2; exit 7"
    with pytest.raises(errors.EngineExitError, match="exit code 7") as caught:
        build(script(body), chain, target)
    assert caught.value.exit_code == 7
    assert caught.value.stderr.splitlines() == [f"line {i}" for i in range(32, 41)] + ["red words"]
    assert caught.value.stderr.splitlines()[-1] in str(caught.value)
    with pytest.raises(errors.EngineExitError, match="on stdout"):
        build(script("echo on stdout; exit 1"), chain, target)
    with pytest.raises(errors.EngineExitError, match="it said nothing"):
        build(script("exit 1"), chain, target)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_killed_by_a_signal(number: signal.Signals, script: Script, chain: str, target: Path) -> None:
    with pytest.raises(errors.EngineSignalError, match=number.name) as caught:
        build(script(f"ulimit -c 0; echo so long >&2; kill -{int(number)} $$"), chain, target)
    assert caught.value.signal == number
    assert caught.value.stderr == "so long"


def test_time_limit(script: Script, chain: str, target: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = script(f"echo $$ > {pids}; sleep 100 & echo $! >> {pids}; setsid sleep 100 & wait")
    begin = time.monotonic()
    with pytest.raises(errors.EngineTimeoutError, match=r"longer than 1.5 s") as caught:
        engines.find_engine("oci2rootfs", oci2rootfs=program).build(chain, os.fspath(target), timeout=1.5)
    assert time.monotonic() - begin < 30
    assert isinstance(caught.value, TimeoutError)
    await_end(await_numbers(pids, 2), 0)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("true", "there is no file"),
        ('echo not an image > "$3"', "there is no ext4 image"),
        ('mkdir "$3"', "there is no ext4 image"),
        ('ln -s {sound} "$3"', "there is no ext4 image"),
        # The magic number is there and the rest is not.
        ('head -c 4096 {sound} > "$3"', "cannot be used"),
    ],
)
def test_success_without_an_image(
    body: str, match: str, script: Script, chain: str, target: Path, sound: Path
) -> None:
    with pytest.raises(errors.EngineOutputError, match=match):
        build(script(body.format(sound=sound)), chain, target)


def test_faults_that_do_not_hinder_are_warnings(
    script: Script, chain: str, target: Path, sound: Path
) -> None:
    # Any image without metadata_csum will do; of ours, the number of free inodes of an old format.
    broken = sound.with_suffix(".broken")
    image = bytearray(sound.read_bytes())
    # s_state at 0x3a: not cleanly unmounted. Its checksum would tell, so take that feature away.
    image[1024 + 0x3A] = 0
    broken.write_bytes(image)
    codes = {problem.code for problem in layermelt.check_image(broken).problems}
    program = script(f'cp {broken} "$3"')
    if codes <= {"not-clean"}:
        assert any("clean" in warning for warning in build(program, chain, target))
    else:
        assert "superblock-checksum" in codes
        with pytest.raises(errors.EngineOutputError, match="checksum"):
            build(program, chain, target)


def test_output_without_end_takes_no_memory(script: Script, chain: str, target: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    body = "head -c 300000000 /dev/zero; head -c 300000000 /dev/zero >&2; echo the end >&2; exit 3"
    with pytest.raises(errors.EngineExitError) as caught:
        build(script(body), chain, target)
    assert caught.value.stderr.endswith("the end")
    assert len(caught.value.stderr) < 1 << 17
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_what_it_leaves_running_is_ended(
    script: Script, chain: str, target: Path, sound: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    # One in its group that holds its stdout and stderr, and one that left for a session of its own.
    daemon = f"setsid sh -c 'echo $$ >> {pids}; exec sleep 100' &"
    body = f'sleep 100 & echo $! > {pids}; {daemon} while [ "$(wc -l < {pids})" -lt 2 ]; do sleep 0.02; done'
    begin = time.monotonic()
    assert build(script(f'{body}; cp {sound} "$3"'), chain, target) == []
    assert time.monotonic() - begin < 30
    await_end(await_numbers(pids, 2), 0)


def test_it_leads_a_session_of_its_own(
    script: Script, chain: str, target: Path, sound: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    build(script(f'cut -d" " -f1,5,6 /proc/$$/stat > {said}; cp {sound} "$3"'), chain, target)
    process, group, session = said.read_text().split()
    assert process == group == session
    assert int(session) != os.getsid(0)


def test_should_stop_stops(script: Script, chain: str, target: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = script(f"echo $$ > {pids}; sleep 100 & echo $! >> {pids}; wait")

    class EnoughError(Exception):
        pass

    def should_stop() -> None:
        if pids.exists() and len(pids.read_text().split()) == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        engines.find_engine("oci2rootfs", oci2rootfs=program).build(
            chain, os.fspath(target), should_stop=should_stop
        )
    await_end(await_numbers(pids, 2), 0)


CALLER = """
import sys
from layermelt.engines import find_engine
find_engine("oci2rootfs", oci2rootfs=sys.argv[1]).build(sys.argv[2], sys.argv[3])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_dies_with_us(
    number: signal.Signals, script: Script, chain: str, target: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    daemon = f"setsid sh -c 'echo $$ >> {pids}; exec sleep 100' &"
    program = script(f"trap '' TERM INT HUP; echo $$ > {pids}; sleep 100 & echo $! >> {pids}; {daemon} wait")
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, program, chain, target], stderr=subprocess.DEVNULL
    )
    processes = await_numbers(pids, 3)
    assert all(map(alive, processes))
    caller.send_signal(number)
    caller.wait(20)
    await_end(processes)


def test_it_dies_with_its_supervisor(script: Script, chain: str, target: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = script(f"echo $$ > {pids}; echo $PPID >> {pids}; exec sleep 100")
    caught: list[BaseException] = []

    def work() -> None:
        try:
            build(program, chain, target)
        except errors.LayermeltError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    engine, supervisor = await_numbers(pids, 2)
    os.kill(supervisor, signal.SIGKILL)
    thread.join(20)
    await_end([engine])
    assert [type(error) for error in caught] == [errors.EngineSignalError]


def test_many_at_once(script: Script, chain: str, tmp_path: Path, sound: Path) -> None:
    program = script(f'cp {sound} "$3"')
    done: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda n=n: done.append(build(program, chain, tmp_path / f"{n}.ext4")))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [[]] * 8


def test_the_native_engine(chain: str, target: Path) -> None:
    engine = engines.find_engine("native", oci2rootfs="/of/no/use")
    assert engine.name == "native"
    assert engine.build(chain, os.fspath(target)) == []
    assert layermelt.check_image(target).sound
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(errors.InvalidOptionError):
        engines.find_engine("native", engine_args=["--size"])

    def refuse() -> None:
        raise KeyError

    slow = os.fspath(target)
    with pytest.raises((KeyError, errors.EngineTimeoutError)):
        # Stops at the first poll, unless the small build was done before it.
        engine.build(chain, slow, should_stop=refuse)
        raise KeyError


def test_a_fingerprint_is_of_what_makes_the_bytes(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprint(program: str, *arguments: str) -> str:
        return engines.find_engine("oci2rootfs", oci2rootfs=program, engine_args=arguments).fingerprint()

    program = script("echo one")
    first = fingerprint(program)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(program)
    assert fingerprint(os.fspath(elsewhere)) == first
    given = [first, fingerprint(program, "--size"), fingerprint(program, "--size", "2G")]
    given += [fingerprint(program, "--size 2G"), fingerprint(program, "--size\n2G", "\udcff")]
    script("echo two")
    given.append(fingerprint(program))
    assert len(set(given)) == len(given)
    assert all(text.startswith("oci2rootfs ") and "\n" not in text for text in given)
    assert all(text.isascii() for text in given)
    with pytest.raises(errors.EngineNotFoundError):
        fingerprint("/nonexistent/oci2rootfs")

    native = engines.find_engine("native").fingerprint()
    assert native == engines.find_engine("native", oci2rootfs=program).fingerprint()
    assert layermelt.__version__ in native
    monkeypatch.setattr("layermelt._core.FORMAT_EPOCH", layermelt._core.FORMAT_EPOCH + 1)
    assert engines.find_engine("native").fingerprint() != native


def test_a_third_engine_is_one_class(
    chain: str, target: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layermelt.engines._registered", {})

    @engines.register_engine
    class Copier:
        name = "copier"

        def __init__(self, *, program: str | None = None, arguments: Sequence[str] = ()) -> None:
            self.given = (program, tuple(arguments))

        def build(
            self,
            layer: str,
            output: str,
            *,
            timeout: float | None = None,
            should_stop: Callable[[], object] | None = None,
        ) -> list[str]:
            assert layer == chain
            Path(output).write_bytes(sound.read_bytes())
            return ["it is only a copy"]

        def fingerprint(self) -> str:
            return "copier 1"

    assert engines.engine_names() == ("native", "oci2rootfs", "copier")
    found = engines.find_engine("copier", oci2rootfs="p", engine_args=["a"])
    assert isinstance(found, Copier)
    assert found.given == ("p", ("a",))
    result = layermelt.build_rootfs(chain, target, engine="copier", sync=False)
    assert (result.engine, result.injector, result.warnings) == ("copier", "mount", ("it is only a copy",))
    assert target.read_bytes() == sound.read_bytes()
    assert layermelt.check_image(target).sound


def test_layers_that_are_not_the_chain(
    docker_root: DockerRoot, target: Path, sound: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is given a directory, and takes all layers that this one names."""
    base, middle, top = docker_root.layers(docker_root.add_image("x:1", layers=3))
    monkeypatch.setenv(ENVIRONMENT, script(f'cp {sound} "$3"'))
    for layers in ([top], [middle, top], [base, top], [top, middle]):
        with pytest.raises(errors.UnsupportedSourceError, match="other ones were given"):
            layermelt.build_rootfs(None, target, layers=layers, engine="oci2rootfs")
    assert os.listdir(target.parent) == []
    for named in ([base, middle, top], [base, middle], [base]):
        layermelt.build_rootfs(None, target, layers=named, engine="oci2rootfs", sync=False)
    layermelt.build_rootfs(
        "docker:x:1", target, docker_root=docker_root.root, engine="oci2rootfs", sync=False
    )


def test_an_engine_that_is_not_known() -> None:
    with pytest.raises(errors.InvalidOptionError, match="expected one of native, oci2rootfs"):
        engines.find_engine("mkfs")


def test_last_lines() -> None:
    assert helpers.last_lines(b"\n\x1b[2ma\x1b[0m\xff\nb \n\n", 2) == "a\\xff\nb"
    assert helpers.last_lines(b"cut \x1b[3") == "cut"
    assert helpers.last_lines(b"") == ""
