"""What puts a file into an image that is finished.

Each injector is one class in one file; `register_injector` makes it known by its name. The
name ``plan`` is no injector: it is the way of the native engine, where the file is part of
the merged tree before an image is planned (`layermelt.build_rootfs`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from layermelt.errors import InvalidOptionError

__all__ = [
    "PLAN",
    "Injector",
    "InjectorClass",
    "choose_injector",
    "find_injector",
    "injector_names",
    "register_injector",
]

#: The native engine's own way: needs no mount and no root.
PLAN = "plan"


class Injector(Protocol):
    """Puts files into finished images.

    Attributes:
        name: What users call it.
    """

    name: str

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
        """Puts one file into `image`, in place.

        The rules are those of `layermelt.InjectedFile`: symlinks in the destination's
        directories are followed inside the image, missing directories are made, a symlink
        or file at the destination itself is replaced.

        Args:
            image: Path of the image.
            agent: Path of the host's file (`str`), or its content (`bytes`).
            destination: Its absolute path in the image.
            mode: Its permissions.
            uid: Its owner.
            gid: Its group.
            check: Whether to see first that the image can run the file: see
                `layermelt.errors.AgentError`.
            timeout: Seconds it may take.
            should_stop: Called now and then; what it raises ends the work, and nothing of it
                goes on when that is raised here.

        Raises:
            InjectionError: One of its subclasses, by what went wrong.
            LayermeltError: The agent or the image cannot be read.
        """
        ...


class InjectorClass(Protocol):
    """What makes an injector: usually its class."""

    @property
    def name(self) -> str:
        """What users call the injector."""
        ...

    def __call__(self, *, busybox: str | None) -> Injector:
        """An injector; `busybox` is for one that uses it."""
        ...


_Class = TypeVar("_Class", bound=InjectorClass)

_registered: dict[str, InjectorClass] = {}
#: Where our own ones are: imported when they are asked for.
_HOMES = {"mount": ("layermelt.inject.mount", "MountInjector")}


def register_injector(injector: _Class) -> _Class:
    """Makes an injector known by its name, in this process. Also a class decorator."""
    _registered[injector.name] = injector
    return injector


def injector_names() -> tuple[str, ...]:
    """The injectors there are, without ``plan``."""
    return tuple(dict.fromkeys((*_HOMES, *_registered)))


def find_injector(name: str, *, busybox: str | None = None) -> Injector:
    """The injector of that name.

    Args:
        name: ``"mount"`` or a registered one.
        busybox: Path of busybox, for an injector that uses it; `None`: it looks itself.

    Raises:
        InvalidOptionError: There is none of that name for finished images.
    """
    injector = _registered.get(name)
    if injector is None:
        names = ", ".join(injector_names())
        if name == PLAN:
            raise InvalidOptionError(
                f"invalid injector {PLAN!r}: it is part of a native build, and cannot put a file into an image "
                f"that is finished; expected one of {names}"
            )
        if name not in _HOMES:
            raise InvalidOptionError(f"invalid injector {name!r}: expected one of {names}")
        module, attribute = _HOMES[name]
        injector = getattr(importlib.import_module(module), attribute)
        assert injector is not None
    return injector(busybox=busybox)


def choose_injector(name: str, engine: str) -> str:
    """The injector's name for an engine: what ``auto`` means, and what cannot go together.

    Raises:
        InvalidOptionError: That engine and that injector cannot go together.
    """
    if name == "auto":
        return PLAN if engine == "native" else "mount"
    if name == PLAN and engine != "native":
        raise InvalidOptionError(
            f"invalid injector {PLAN!r} with the engine {engine}: it is part of a native build; "
            "use the injector mount"
        )
    if name != PLAN and name not in injector_names():
        names = ", ".join(("auto", PLAN, *injector_names()))
        raise InvalidOptionError(f"invalid injector {name!r}: expected one of {names}")
    return name
