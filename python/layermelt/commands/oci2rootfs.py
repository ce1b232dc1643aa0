"""``layermelt oci2rootfs SOURCE --output OUT``: in the place of the program of that name.

Agents that call it can be given this one by a symlink of that name to ``layermelt``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from layermelt.console import PATH, SizeType, say
from layermelt.errors import LayermeltError, TooSmallError

if TYPE_CHECKING:
    import uuid as _uuid

    from layermelt.results import BuildResult

__all__ = ["command"]

#: oci2rootfs makes images of whole block groups.
_GROUP = 128 << 20
_EPILOG = """\b
Exit codes, as of oci2rootfs:
  0    done
  1    failed, for whatever reason: stderr tells
  2    wrong usage
"""


@click.command(
    "oci2rootfs",
    epilog=_EPILOG,
    short_help="Make an image under the arguments of oci2rootfs.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="OUT", help="The image to be written.")
@click.option(
    "--size",
    type=SizeType(),
    metavar="N",
    help="Size of the image, more if its files need it (default: what is needed and 256M; of oci2rootfs: 512M).",
)
@click.option("--label", default="", help="The file system's label, at most 16 bytes.")
@click.option("--uuid", type=click.UUID, help="The file system's UUID (default: derived from the tree).")
@click.option("--platform", hidden=True, help="Of registries' images only, which are not read here.")
@click.option("--insecure", is_flag=True, hidden=True, help="Of registries only.")
def command(
    source: str,
    *,
    output: str,
    size: int | None,
    label: str,
    uuid: _uuid.UUID | None,
    platform: str | None,
    insecure: bool,
) -> None:
    """Makes an ext4 image of SOURCE, an overlay2 layer directory with its chain.

    This is the native build, under the arguments and with the exit codes of the external
    program oci2rootfs 0.3.0.
    """
    del platform, insecure
    try:
        try:
            result = _build(source, output, size="auto" if size is None else size, label=label, uuid=uuid)
        except TooSmallError as error:
            # Agents give a size that is enough for most layers, and oci2rootfs takes more where it is not.
            enough = -(-error.needed // _GROUP) * _GROUP
            say(f"warning: {size} bytes do not hold the files of {source}; the image has {enough}")
            result = _build(source, output, size=enough, label=label, uuid=uuid)
    except LayermeltError as error:
        say(f"error: {error}")
        raise SystemExit(1) from None
    for warning in result.warnings:
        say(f"warning: {warning}")


def _build(source: str, output: str, *, size: int | str, label: str, uuid: _uuid.UUID | None) -> BuildResult:
    from layermelt.cache import CacheNames
    from layermelt.job import Job, finish
    from layermelt.options import core_options, image_shape
    from layermelt.publish import Publication
    from layermelt.ways import NativeWay

    options = core_options(
        image_shape(size=size, label=label, uuid=uuid),
        agent=None,
        files=(),
        threads=None,
        agent_check=False,
        sync=True,
        progress=None,
    )
    # Its callers give each output a name of its own, by which no leftover would be known.
    publication = Publication(output, names=CacheNames())
    job = Job.of(source, options)
    with publication:
        way = NativeWay()
        return finish(way, job, publication, way.make(job, publication))
