"""What makes an image from a chain directory: our own way, or another program.

Each engine is one class in one file; `register_engine` makes it known by its name. The
native engine's full range of options is `layermelt.build_rootfs`'s; this is what all
engines can do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from layermelt.errors import InvalidOptionError

__all__ = ["Engine", "EngineClass", "engine_names", "find_engine", "register_engine"]


class Engine(Protocol):
    """Makes images.

    Attributes:
        name: What users call it.
    """

    name: str

    def build(
        self,
        layer: str,
        output: str,
        *,
        timeout: float | None = None,
        should_stop: Callable[[], object] | None = None,
    ) -> list[str]:
        """Makes an image of the chain directory `layer` at `output`.

        Args:
            layer: A chain directory: ``overlay2/<id>``.
            output: A temporary name in the directory of the image to be. There is either
                nothing or an empty regular file of ours. What is there after an error is
                of no use and is the caller's to remove; so are fsync and rename.
            timeout: Seconds it may take.
            should_stop: Called now and then; what it raises ends the work, and nothing of it
                goes on when that is raised here.

        Returns:
            What the user should know, a sentence each: what is wrong with the image but does
            not hinder its use.

        Raises:
            EngineError: One of its subclasses, by what went wrong with another program.
            LayermeltError: Other failures.
        """
        ...

    def fingerprint(self) -> str:
        """What the bytes of an image hang on beside the chain: part of the key of a cache.

        Two engines of one fingerprint make the same image of the same chain. It is text of
        one line without further meaning, and begins with the engine's name.

        Raises:
            EngineError: The engine's program is not there, or may not be executed.
            LayermeltError: It cannot be read.
        """
        ...


class EngineClass(Protocol):
    """What makes an engine: usually its class."""

    @property
    def name(self) -> str:
        """What users call the engine."""
        ...

    def __call__(self, *, program: str | None, arguments: Sequence[str]) -> Engine:
        """An engine with its program, where it has one, and further arguments for it."""
        ...


_Class = TypeVar("_Class", bound=EngineClass)

_registered: dict[str, EngineClass] = {}
#: Where our own ones are: imported when they are asked for.
_HOMES = {
    "native": ("layermelt.engines.native", "NativeEngine"),
    "oci2rootfs": ("layermelt.engines.oci2rootfs", "Oci2RootfsEngine"),
}


def register_engine(engine: _Class) -> _Class:
    """Makes an engine known by its name, in this process. Also a class decorator."""
    _registered[engine.name] = engine
    return engine


def engine_names() -> tuple[str, ...]:
    """The engines there are."""
    return tuple(dict.fromkeys((*_HOMES, *_registered)))


def find_engine(name: str, *, oci2rootfs: str | None = None, engine_args: Sequence[str] = ()) -> Engine:
    """The engine of that name.

    Args:
        name: ``"native"``, ``"oci2rootfs"`` or a registered one.
        oci2rootfs: Path of its program, for an engine that has one; `None`: it looks itself.
        engine_args: Further arguments for that program.

    Raises:
        InvalidOptionError: There is no such engine, or it takes no such arguments.
    """
    engine = _registered.get(name)
    if engine is None:
        if name not in _HOMES:
            names = ", ".join(engine_names())
            raise InvalidOptionError(f"invalid engine {name!r}: expected one of {names}")
        module, attribute = _HOMES[name]
        engine = getattr(importlib.import_module(module), attribute)
        assert engine is not None
    return engine(program=oci2rootfs, arguments=tuple(engine_args))
