"""A third injector takes one class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from layermelt import InjectedFile, build_rootfs, check_image, errors, inject


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes, bytes, int]]:
    """What the third one was asked."""
    made: list[tuple[str, bytes, bytes, int]] = []
    monkeypatch.setattr(inject, "_registered", {})

    @inject.register_injector
    class Third:
        name = "third"

        def __init__(self, *, busybox: str | None) -> None:
            del busybox

        def inject(
            self,
            image: str,
            agent: str | bytes,
            destination: bytes,
            *,
            mode: int = 0o755,
            uid: int = 0,
            gid: int = 0,
            check: bool = False,
            timeout: float | None = None,
            should_stop: Callable[[], object] | None = None,
        ) -> None:
            assert check_image(image).sound
            assert isinstance(agent, bytes)
            made.append((image, agent, destination, mode))

    return made


def test_a_third_injector_is_one_class(
    layer: Path, target: Path, calls: list[tuple[str, bytes, bytes, int]]
) -> None:
    agent = InjectedFile("/sbin/vm-agent", content=b"agent", mode=0o711)
    with pytest.raises(errors.InvalidOptionError, match="auto, plan, mount, third"):
        build_rootfs(None, target, layers=[layer], injector="fourth")
    result = build_rootfs(None, target, layers=[layer], agent=agent, agent_check=False, injector="third")
    assert (result.engine, result.injector) == ("native", "third")
    assert "inject" in result.phases
    [(image, content, destination, mode)] = calls
    assert Path(image).parent == target.parent
    assert (content, destination, mode) == (b"agent", b"/sbin/vm-agent", 0o711)
