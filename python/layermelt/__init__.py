"""Melts a chain of container layers into one bootable ext4 image.

    from layermelt import build_rootfs

    result = build_rootfs("docker:debian:12", "rootfs.ext4", agent="vm-agent")
    print(result.path, result.size)

Nothing is mounted, no other program is run, and no root is needed beyond reading the layers.
Errors are in `layermelt.errors`.
"""

from __future__ import annotations

# As type checkers know it; importing `typing` costs more than all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from layermelt import errors
    from layermelt._core import __version__
    from layermelt.builder import build_rootfs, inspect_source
    from layermelt.convert import convert_layer_to_rootfs
    from layermelt.differ import Difference, DiffResult, FieldChange, LinkGroup, diff_trees
    from layermelt.errors import LayermeltError
    from layermelt.growing import GrowReport, grow_image
    from layermelt.images import ImageReport, Problem, check_image, has_ext4_magic
    from layermelt.inject.files import InjectionReport, inject_files
    from layermelt.options import InjectedFile
    from layermelt.results import BuildResult, InspectResult
    from layermelt.settings import Settings

__all__ = [
    "BuildResult",
    "DiffResult",
    "Difference",
    "FieldChange",
    "GrowReport",
    "ImageReport",
    "InjectedFile",
    "InjectionReport",
    "InspectResult",
    "LayermeltError",
    "LinkGroup",
    "Problem",
    "Settings",
    "__version__",
    "build_rootfs",
    "check_image",
    "convert_layer_to_rootfs",
    "diff_trees",
    "errors",
    "grow_image",
    "has_ext4_magic",
    "inject_files",
    "inspect_source",
]

# Names are imported when they are asked for: `import layermelt` costs a millisecond.
_HOMES = {
    "BuildResult": "results",
    "GrowReport": "growing",
    "DiffResult": "differ",
    "Difference": "differ",
    "FieldChange": "differ",
    "ImageReport": "images",
    "InjectedFile": "options",
    "InjectionReport": "inject.files",
    "InspectResult": "results",
    "LayermeltError": "errors",
    "LinkGroup": "differ",
    "Problem": "images",
    "Settings": "settings",
    "__version__": "_core",
    "build_rootfs": "builder",
    "check_image": "images",
    "convert_layer_to_rootfs": "convert",
    "grow_image": "growing",
    "diff_trees": "differ",
    "has_ext4_magic": "images",
    "inject_files": "inject.files",
    "inspect_source": "builder",
}


def __getattr__(name: str) -> object:
    import importlib

    if name == "errors":
        return importlib.import_module("layermelt.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"layermelt.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
