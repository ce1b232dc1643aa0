"""The job of older agents: a layer's path in, the path of its rootfs out."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from layermelt import Settings, check_image, convert_layer_to_rootfs, engines, errors
from layermelt.digests import path_key
from unit.test_api import debugfs

MIB = 1 << 20


@pytest.fixture
def settings(tmp_path: Path, agent: Path) -> Settings:
    return Settings(cache_dir=os.fspath(tmp_path / "cache"), agent=os.fspath(agent), agent_check=False)


def test_a_missing_layer(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(errors.LayerNotFoundError) as caught:
        convert_layer_to_rootfs(tmp_path / "nope", settings=settings)
    assert str(caught.value) == f"layer path not found: {tmp_path}/nope"
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.path == f"{tmp_path}/nope"
    assert not (tmp_path / "cache").exists()


def test_a_conversion(overlay2: Path, settings: Settings) -> None:
    image = convert_layer_to_rootfs(overlay2, settings=settings)
    assert image == Path(settings.cache_dir) / f"rootfs-{path_key(overlay2)}.ext4"
    assert os.listdir(settings.cache_dir) == [image.name]
    assert stat.S_IMODE(image.stat().st_mode) == 0o444
    assert check_image(image).sound
    assert debugfs(image, "cat /sbin/vm-agent") == "agent\n"
    assert "Mode:  0755" in debugfs(image, "stat /sbin/vm-agent")
    assert debugfs(image, "cat /etc/hostname") == "melted\n"


def test_the_second_call_is_a_hit(
    overlay2: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = convert_layer_to_rootfs(overlay2, settings=settings)
    before = first.stat()
    # Neither the layer nor the agent is looked at.
    os.unlink(settings.agent)
    shutil.rmtree(overlay2 / "diff")
    assert convert_layer_to_rootfs(os.fspath(overlay2), settings=settings) == first
    assert first.stat().st_ino == before.st_ino


def test_the_key_is_made_of_the_path_as_it_is_given(
    overlay2: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(overlay2.parent)
    image = convert_layer_to_rootfs("top", settings=settings)
    assert image.name == f"rootfs-{path_key('top')}.ext4"
    assert path_key("top") != path_key(overlay2)


def test_what_is_logged(overlay2: Path, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "layermelt")
    image = convert_layer_to_rootfs(overlay2, settings=settings)
    convert_layer_to_rootfs(overlay2, settings=settings)
    assert [record.getMessage() for record in caplog.records] == [
        "converting overlay2 layer to ext4",
        "injecting vm-agent into rootfs",
        "rootfs ready",
        "using cached rootfs",
    ]
    assert {record.name for record in caplog.records} == {"layermelt"}
    converting, injecting, ready, cached = (record.__dict__ for record in caplog.records)
    for record in (converting, injecting, ready, cached):
        assert record["layer"] == os.fspath(overlay2)
    for record in (converting, injecting, ready, cached):
        assert record["rootfs"] == os.fspath(image)
    assert injecting["agent"] == settings.agent


def damage_superblock(image: Path) -> None:
    image.chmod(0o644)
    with image.open("r+b") as file:
        file.seek(1024 + 4)
        file.write(b"\xff\xff\xff\x7f")


def test_a_damaged_entry_is_rebuilt_with_a_warning(
    overlay2: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    image = convert_layer_to_rootfs(overlay2, settings=settings)
    damage_superblock(image)
    assert convert_layer_to_rootfs(overlay2, settings=settings) == image
    assert check_image(image).sound
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings[0].getMessage() == "rebuilding a damaged rootfs"
    assert warnings[0].__dict__["rootfs"] == os.fspath(image)


def test_without_verify_the_magic_is_enough(overlay2: Path, settings: Settings) -> None:
    image = convert_layer_to_rootfs(overlay2, settings=settings)
    damage_superblock(image)
    careless = Settings(cache_dir=settings.cache_dir, agent=settings.agent, agent_check=False, verify=False)
    inode = image.stat().st_ino
    assert convert_layer_to_rootfs(overlay2, settings=careless) == image
    assert image.stat().st_ino == inode
    # No ext4 at all is none for anybody.
    image.write_bytes(b"nothing")
    assert convert_layer_to_rootfs(overlay2, settings=careless) == image
    assert check_image(image).sound


@pytest.mark.parametrize("verify", [True, False])
def test_an_entry_that_is_a_symlink_is_not_followed(
    overlay2: Path, settings: Settings, tmp_path: Path, verify: bool
) -> None:
    chosen = Settings(cache_dir=settings.cache_dir, agent=settings.agent, agent_check=False, verify=verify)
    image = convert_layer_to_rootfs(overlay2, settings=chosen)
    elsewhere = tmp_path / "elsewhere.ext4"
    shutil.copyfile(image, elsewhere)
    before = elsewhere.stat()
    image.unlink()
    image.symlink_to(elsewhere)
    assert convert_layer_to_rootfs(overlay2, settings=chosen) == image
    assert not image.is_symlink()
    assert elsewhere.stat() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of another user")
def test_an_entry_of_another_user_is_not_taken(overlay2: Path, settings: Settings) -> None:
    image = convert_layer_to_rootfs(overlay2, settings=settings)
    os.chown(image, 4711, 4711)
    assert convert_layer_to_rootfs(overlay2, settings=settings) == image
    assert image.stat().st_uid == 0


def test_other_keys_follow_the_content(overlay2: Path, settings: Settings) -> None:
    for key in ("content", "stat"):
        chosen = Settings(cache_dir=settings.cache_dir, agent=settings.agent, agent_check=False, key=key)
        first = convert_layer_to_rootfs(overlay2, settings=chosen)
        assert convert_layer_to_rootfs(overlay2, settings=chosen) == first
        (overlay2 / "diff/etc/hostname").write_text(f"another {key}\n")
        second = convert_layer_to_rootfs(overlay2, settings=chosen)
        assert second != first
        assert debugfs(second, "cat /etc/hostname") == f"another {key}\n"


def test_an_unfit_agent_is_an_error_and_nothing_is_made(overlay2: Path, settings: Settings) -> None:
    strict = Settings(cache_dir=settings.cache_dir, agent=settings.agent)
    with pytest.raises(errors.AgentError):
        convert_layer_to_rootfs(overlay2, settings=strict)
    assert os.listdir(settings.cache_dir) == []
    os.unlink(settings.agent)
    with pytest.raises(errors.InjectionNotFoundError):
        convert_layer_to_rootfs(overlay2, settings=strict)
    assert os.listdir(settings.cache_dir) == []


def test_threads_build_one_image(
    overlay2: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "layermelt")
    images: list[Path] = []
    begin = threading.Barrier(8)

    def convert() -> None:
        begin.wait()
        images.append(convert_layer_to_rootfs(overlay2, settings=settings))

    threads = [threading.Thread(target=convert) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 8
    assert len(set(images)) == 1
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("rootfs ready") == 1
    assert messages.count("using cached rootfs") == 7
    assert os.listdir(settings.cache_dir) == [images[0].name]


class TestSettings:
    def test_defaults(self) -> None:
        settings = Settings()
        assert settings.cache_dir == "/arcbox/bin"
        assert settings.agent == "/arcbox/bin/vm-agent"
        assert settings.oci2rootfs == "/arcbox/bin/oci2rootfs"
        assert settings.busybox == "/bin/busybox"
        assert (settings.engine, settings.injector, settings.key) == ("native", "auto", "path")
        assert settings.verify is True

    def test_arguments_beat_the_environment_beats_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERMELT_CACHE_DIR", "/from/environment")
        monkeypatch.setenv("LAYERMELT_ENGINE", "oci2rootfs")
        monkeypatch.setenv("LAYERMELT_VERIFY", "0")
        monkeypatch.setenv("LAYERMELT_TIMEOUT", "2.5")
        settings = Settings(engine="native")
        assert (settings.cache_dir, settings.engine) == ("/from/environment", "native")
        assert (settings.verify, settings.timeout) == (False, 2.5)
        assert settings.agent == "/arcbox/bin/vm-agent"
        # What the message of a wrong one asks for.
        assert Settings(verify=1).verify is True  # type: ignore[arg-type]

    def test_legacy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERMELT_ENGINE", "native")
        settings = Settings.legacy(cache_dir="/c")
        assert (settings.engine, settings.injector, settings.key) == ("oci2rootfs", "mount", "path")
        assert settings.cache_dir == "/c"

    def test_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Settings().cache_dir = "/x"  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("verify", "maybe"), ("key", "sha"), ("timeout", "0"), ("timeout", "soon"), ("cache_dir", "a\0b")],
    )
    def test_what_cannot_be(self, name: str, value: str) -> None:
        with pytest.raises(errors.InvalidOptionError, match=f"invalid {name}"):
            Settings(**{name: value})  # type: ignore[arg-type]


def run(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "layermelt", *(os.fspath(argument) for argument in arguments)],
        capture_output=True,
        text=True,
    )


def test_the_command(overlay2: Path, settings: Settings) -> None:
    options = ("--cache-dir", settings.cache_dir, "--agent", settings.agent, "--no-agent-check")
    done = run("convert", overlay2, *options)
    assert done.returncode == 0, done.stderr
    image = f"{settings.cache_dir}/rootfs-{path_key(overlay2)}.ext4"
    assert done.stdout == f"{image}\n"
    assert "converting overlay2 layer to ext4" in done.stderr
    assert "rootfs ready" in done.stderr
    again = run("convert", overlay2, *options, "--json")
    assert f'"path": "{image}"' in again.stdout
    assert again.stderr.startswith("layermelt: using cached rootfs")
    missing = run("convert", f"{overlay2}-nope", *options)
    assert missing.returncode == 3
    assert missing.stderr == f"layermelt: error: layer path not found: {overlay2}-nope\n"


def test_in_the_place_of_oci2rootfs(overlay2: Path, tmp_path: Path) -> None:
    """An agent's program of that name is a symlink to ours, under the old engine's supervision."""
    link = tmp_path / "bin/oci2rootfs"
    link.parent.mkdir()
    link.symlink_to(Path(sys.executable).parent / "layermelt")
    target = tmp_path / "out.ext4"
    assert (
        engines.find_engine("oci2rootfs", oci2rootfs=os.fspath(link)).build(
            os.fspath(overlay2), os.fspath(target)
        )
        == []
    )
    assert check_image(target).sound
    command = [os.fspath(link), os.fspath(overlay2), "--output", os.fspath(target)]
    uuid = "123e4567-e89b-12d3-a456-426614174000"
    done = subprocess.run(
        [*command, "--size", "16M", "--label", "root", "--uuid", uuid], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    report = check_image(target)
    assert (report.size, report.label, report.uuid) == (16 << 20, "root", uuid)
    # Agents give a size that is enough for most layers.
    larger = subprocess.run([*command, "--size", "4K", "--label", "more"], capture_output=True, text=True)
    assert (larger.returncode, larger.stdout) == (0, "")
    assert larger.stderr.startswith("layermelt: warning: 4096 bytes do not hold the files")
    report = check_image(target)
    assert (report.sound, report.size, report.label) == (True, 128 * MIB, "more")
    before = target.read_bytes()
    failed = subprocess.run([*command, "--label", "x" * 17], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("layermelt: error: ")
    assert subprocess.run([*command, "--uuid", "x"], capture_output=True).returncode == 2
    missing = subprocess.run(
        [os.fspath(link), os.fspath(tmp_path / "no"), "--output", os.fspath(target)], capture_output=True
    )
    assert missing.returncode == 1
    assert subprocess.run([*command, "--what"], capture_output=True).returncode == 2
    assert subprocess.run(command[:2], capture_output=True).returncode == 2
    assert target.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["bin", "out.ext4", "overlay2"]
