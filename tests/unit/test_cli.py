"""The command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from layermelt import errors
from layermelt.cli import cli
from unit.stores import DockerRoot

Argument = str | bytes | Path


def command(arguments: Sequence[Argument]) -> list[bytes]:
    return [os.fsencode(sys.executable), b"-m", b"layermelt.cli", *map(os.fsencode, arguments)]


def run(*arguments: Argument, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """As a shell runs it."""
    done = subprocess.run(
        command(arguments), capture_output=True, env={**os.environ, **environment}, timeout=60, check=False
    )
    assert b"Traceback" not in done.stderr
    return done


def invoke(*arguments: Argument) -> Result:
    """In this process."""
    return CliRunner().invoke(cli, [os.fsdecode(argument) for argument in arguments])


def test_build_and_check_and_inspect(layer: Path, target: Path, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_text("agent")
    options = ("--agent", agent, "--no-agent-check", "--free-space", "8M")
    built = run("build", "--layer", layer, *options, "-o", target)
    assert built.returncode == 0
    assert built.stdout == os.fsencode(target) + b"\n"
    assert re.search(rb"[\d,]+ entries: .*\nimage .* on the disk.*\n.*scan [\d.]+ \+ .* s", built.stderr)

    checked = run("check", target)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert b"sound ext4" in checked.stdout

    image = run("inspect", target)
    assert image.returncode == 0
    assert b"features has_journal" in image.stdout
    source = run("inspect", "--layer", layer)
    assert source.returncode == 0
    assert os.fsencode(layer) in source.stdout


def test_quiet(layer: Path, target: Path) -> None:
    built = run("build", "-q", "--layer", layer, "-o", target)
    assert (built.returncode, built.stderr) == (0, b"")


def test_json(layer: Path, target: Path) -> None:
    built = json.loads(run("build", "--json", "--layer", layer, "-o", target).stdout)
    assert built["path"] == os.fspath(target)
    assert built["entries"] == 3
    assert built["phases"]["scan"] >= 0
    checked = json.loads(run("check", "--json", target).stdout)
    assert (checked["sound"], checked["problems"], checked["uuid"]) == (True, [], built["uuid"])
    assert json.loads(run("inspect", "--json", target).stdout)["kind"] == "image"
    source = json.loads(run("inspect", "--json", "--layer", layer).stdout)
    assert (source["kind"], source["layers"]) == ("source", [os.fspath(layer)])


def test_docker(docker_root: DockerRoot, target: Path) -> None:
    docker_root.add_image("a:1", layers=3)
    for arguments in (["build", "--no-sync", "docker:a:1", "-o", target], ["inspect", "docker:a:1"]):
        assert run(*arguments, "--docker-root", docker_root.root).returncode == 0
        assert run(*arguments, LAYERMELT_DOCKER_ROOT=os.fspath(docker_root.root)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["build", "/nowhere", "-o", "{target}"], 3, "/nowhere"),
        (["build", "--layer", "/nowhere", "-o", "{target}"], 3, "/nowhere"),
        (["build", "docker:a", "--docker-root", "/nowhere", "-o", "{target}"], 3, "--docker-root"),
        (["build", "-o", "{target}"], 2, "no source"),
        (["build", "{layer}", "--layer", "{layer}", "-o", "{target}"], 2, "exclude each other"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--cache-dir", "x"], 2, "exclude each other"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--block-size", "512"], 2, "block-size"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--profile", "x"], 2, "profile"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--journal", "0"], 2, "none"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--engine", "x"], 2, "oci2rootfs"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--injector", "x"], 2, "mount"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--timeout", "0"], 2, "timeout"),
        (["convert", "/nowhere"], 3, "layer path not found: /nowhere"),
        (["build", "--layer", "{layer}", "-o", ""], 2, "empty"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--size", "x"], 2, "auto, or min"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--label", "x" * 17], 2, "label"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--uuid", "x"], 2, "UUID"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--threads", "0"], 2, "threads"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--inodes", "0"], 2, "inodes"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--file", "x"], 2, "SRC:DEST[:MODE]"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--file", "x:y"], 2, "SRC:DEST[:MODE]"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--file", "x:/y:77777"], 2, "mode"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--size", "4096"], 6, "too small"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--agent", "/nowhere"], 7, "/nowhere"),
        (["build", "--layer", "{layer}", "-o", "{target}", "--agent", "/bin/sh:/etc"], 7, "/etc"),
        (["build", "--layer", "{layer}", "-o", "/nowhere/x"], 8, "/nowhere"),
        (["build", "--layer", "{layer}", "-o", "/"], 8, "directory"),
        (["build", "--layer", "{layer}", "-o", "/dev/null"], 8, "device"),
        (["check", "/nowhere"], 9, "/nowhere"),
        (["check", "/"], 9, "a directory"),
        (["check", "/etc/passwd"], 1, "not a sound ext4"),
        (["inspect", "/nowhere"], 3, "/nowhere"),
        (["check"], 2, "IMAGE"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_failures_are_one_message_and_a_code(
    arguments: list[str], code: int, text: str, layer: Path, target: Path
) -> None:
    done = run(*(one.format(layer=layer, target=target) for one in arguments))
    assert done.returncode == code
    assert text in done.stderr.decode()
    assert done.stdout == b""
    assert os.listdir(target.parent) == []


def test_failures_as_json(layer: Path, target: Path) -> None:
    done = run("build", "--json", "--layer", layer, "--size", "4096", "-o", target)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["exit_code"], error["type"]) == (6, 6, "TooSmallError")
    assert error["given"] == 4096 < error["needed"]
    assert error["message"] in done.stderr.decode()
    damaged = json.loads(run("check", "--json", "/etc/passwd").stdout)
    assert (damaged["sound"], damaged["problems"][0]["code"]) == (False, "too-short")


def test_help_says_all_exit_codes() -> None:
    codes = {getattr(errors, name).return_code for name in errors.__all__}
    for arguments in (["--help"], ["build", "-h"], ["check", "--help"], ["inspect", "--help"]):
        told = invoke(*arguments)
        assert told.exit_code == 0
        for code in codes | {0, 129, 130, 143}:
            assert re.search(rf"^ +(\d+ .*\()?{code}\b", told.output, re.MULTILINE), code


def test_help_says_every_option() -> None:
    for name, subcommand in cli.commands.items():
        told = invoke(name, "--help").output
        assert subcommand.short_help
        for parameter in subcommand.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[-1] in told
                assert getattr(parameter, "help", None), parameter.name


def test_version() -> None:
    assert re.fullmatch(r"layermelt \d+\.\d+\.\d+\n", invoke("--version").output)


@pytest.mark.parametrize(
    ("text", "source", "destination", "mode"),
    [
        ("a:/b", "a", "/b", None),
        ("a:/b:644", "a", "/b", 0o644),
        ("a:/b:4755", "a", "/b", 0o4755),
        ("/x/a:/b/c", "/x/a", "/b/c", None),
        ("a:b:/c", "a:b", "/c", None),
        ("a:/b:/c", "a:/b", "/c", None),
        ("a:/b:c", "a", "/b:c", None),
        ("a:/b:99", "a", "/b:99", None),
        ("a\nb:/c", "a\nb", "/c", None),
    ],
)
def test_files(text: str, source: str, destination: str, mode: int | None) -> None:
    from layermelt.console import parse_file

    file = parse_file(text)
    assert (file.source, file.destination, file.mode) == (source, destination, mode)


@pytest.mark.parametrize(
    ("text", "source", "destination"),
    [
        ("a", "a", "/sbin/vm-agent"),
        ("/x/a", "/x/a", "/sbin/vm-agent"),
        ("a:b", "a:b", "/sbin/vm-agent"),
        ("a:/b", "a", "/b"),
        ("/x/a:b:/c/d", "/x/a:b", "/c/d"),
    ],
)
def test_agents(text: str, source: str, destination: str) -> None:
    from layermelt.console import parse_agent

    file = parse_agent(text)
    assert (file.source, file.destination, file.mode) == (source, destination, 0o755)


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-16"},
    ],
)
def test_names_of_any_bytes_in_any_locale(layer: Path, target: Path, locale: dict[str, str]) -> None:
    name = b"\xff\xfe \xc3\xbc\xe2\x98\x83 \x1b[31m.ext4"
    image = os.fsencode(target.parent) + b"/" + name
    built = run("build", "--no-sync", "--layer", layer, "-o", image, **locale)
    assert built.returncode == 0
    # On stdout it is for programs: byte for byte.
    assert built.stdout == image + b"\n"
    assert os.listdir(os.fsencode(target.parent)) == [name]
    for arguments in (["check"], ["check", "--json"], ["inspect"], ["inspect", "--json"]):
        done = run(*arguments, image, **locale)
        assert done.returncode == 0
        assert b"\x1b" not in done.stdout
    told = json.loads(run("check", "--json", image, PYTHONIOENCODING="ascii").stdout)
    assert bytes.fromhex(told["path_hex"]) == image
    assert told["path"].encode() == image.replace(b"\xff\xfe", "\ufffd\ufffd".encode())
    missing = run("check", image + b"\n\x07", **locale)
    assert missing.returncode == 9
    assert b"\x1b" not in missing.stderr
    assert b"\x07" not in missing.stderr


def test_warnings_are_told(docker_root: DockerRoot, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = docker_root.layers(docker_root.add_image("a:1"))[-1].parent
    (top / "merged").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == os.fspath(top / "merged"))
    done = invoke("build", "--quiet", top, "-o", target)
    assert done.exit_code == 0
    assert re.search(r"warning: .* is mounted", done.stderr)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away(layer: Path, target: Path, stream: str) -> None:
    quiet = ["-q"] if stream == "stdout" else []
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        process = subprocess.Popen(
            command(["build", *quiet, "--layer", layer, "-o", target]),
            stdout=closed if stream == "stdout" else subprocess.PIPE,
            stderr=closed if stream == "stderr" else subprocess.PIPE,
        )
    out, err = process.communicate(timeout=60)
    assert process.returncode == (141 if stream == "stdout" else 0)
    assert not err
    if stream == "stderr":
        assert out == os.fsencode(target) + b"\n"
    assert os.listdir(target.parent) == [target.name]


def test_results_that_cannot_be_written(layer: Path, target: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(["build", "-q", "--layer", layer, "-o", target]),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 8
    assert b"Traceback" not in done.stderr
    assert b"No space left" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted(target: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    layer = tmp_path / "large"
    layer.mkdir()
    for name in range(64):
        (layer / f"f{name}").write_bytes(os.urandom(1 << 21))
    target.write_bytes(b"old")
    for _ in range(20):
        process = subprocess.Popen(
            command(["build", "--no-sync", "--layer", layer, "-o", target]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        # As soon as the build has begun: there is a temporary file then.
        while process.poll() is None and len(os.listdir(target.parent)) < 2:
            time.sleep(0.001)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert b"Traceback" not in err
        assert os.listdir(target.parent) == [target.name]
        if target.read_bytes() == b"old":
            assert (process.returncode, out) == (code, b"")
            return
        # It was faster, or at its end already.
        assert process.returncode in (0, code)
        target.write_bytes(b"old")
    pytest.fail("no build could be interrupted")


def test_hang_up_may_be_ignored(layer: Path, target: Path) -> None:
    """As nohup(1) does it."""
    program = (
        "import os, signal; from layermelt import cli; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import layermelt.builder as builder; build = builder.build_rootfs\n"
        "def hung_up(*arguments, **options):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return build(*arguments, **options)\n"
        "builder.build_rootfs = hung_up; cli.main()\n"
    )
    words: list[str | Path] = [sys.executable, "-c", program, "build", "--layer", layer, "-o", target]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    assert target.exists()


def test_a_fault_of_its_own_is_one_message(layer: Path, target: Path) -> None:
    program = (
        "import sys, layermelt.builder\n"
        "def fail(*_arguments, **_options):\n"
        "    raise RuntimeError('oops')\n"
        "layermelt.builder.build_rootfs = fail\n"
        "from layermelt.cli import main\n"
        "main()\n"
    )
    arguments: list[str | Path] = [sys.executable, "-c", program, "build", "--layer", layer, "-o", target]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == 70
    assert b"RuntimeError: oops; please report it" in done.stderr
    assert b"Traceback" not in done.stderr
    environment = {**os.environ, "LAYERMELT_TRACEBACK": "1"}
    assert b"Traceback" in subprocess.run(arguments, capture_output=True, env=environment, check=False).stderr


def test_standard_streams_may_be_closed(layer: Path, target: Path) -> None:
    def run(*arguments: object, closed: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "layermelt", *map(str, arguments)]
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True, text=True, check=False
        )

    # Nobody hears the summary.
    done = run("build", "--layer", layer, "-o", target, closed="2>&-")
    assert (done.returncode, done.stdout) == (0, f"{target}\n")
    assert run("build", "--layer", target, "-o", target, closed="2>&-").returncode == 3
    # But a result that nobody can read is a failure.
    for arguments in (["build", "--layer", layer, "-o", target, "-q"], ["hash", target], ["check", target]):
        done = run(*arguments, closed=">&-")
        assert (done.returncode, done.stderr) == (
            8,
            "layermelt: error: cannot write the results to stdout: Bad file descriptor\n",
        )
