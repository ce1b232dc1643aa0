"""The job of older agents: the path of a layer directory in, the path of its rootfs out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from layermelt import digests, log
from layermelt import settings as _settings
from layermelt.cache import Cache, build_entry
from layermelt.errors import InvalidOptionError, LayerNotFoundError
from layermelt.identity import Identity, demand_unchanged, identify
from layermelt.job import Job, Limit
from layermelt.options import Progress, StrPath, core_options, image_shape
from layermelt.settings import Settings
from layermelt.ways import choose_way

__all__ = ["convert_layer_to_rootfs"]


def convert_layer_to_rootfs(
    layer_path: StrPath, *, settings: Settings | None = None, progress: Progress | None = None
) -> Path:
    """The bootable ext4 image of a layer directory, with the agent in it; from the cache when it is there.

    The image is ``<cache_dir>/rootfs-<key>.ext4``. With the default key, 16 hex digits of the
    path's text, an image that is there is taken as it is: of a layer that changed since, the
    older image is handed out. `settings` names other keys. What is done is logged under
    ``layermelt``.

    Args:
        layer_path: A chain directory of Docker's store: ``/var/lib/docker/overlay2/<id>``.
        settings: `None`: what the environment says, else the defaults.
        progress: Called some 20 times a second with (phase, units done, units in all or 0).
            What it raises ends the conversion and is raised here.

    Returns:
        The path of the image, a read-only file.

    Raises:
        LayerNotFoundError: There is no such directory.
        LayermeltError: One of `layermelt.errors`.
    """
    chosen = Settings() if settings is None else settings
    layer = os.fsdecode(layer_path)
    if not layer or "\0" in layer:
        raise InvalidOptionError(f"invalid layer path {layer!r}: expected a chain directory (overlay2/<id>)")
    if not os.path.exists(layer):
        raise LayerNotFoundError(f"layer path not found: {layer}", path=layer, errno=errno.ENOENT)
    cache = Cache(chosen.cache_dir)
    if chosen.key != "path":
        return _convert(cache, None, layer, chosen, progress)
    key = digests.path_key(layer)
    # A hit costs neither a look at the layers nor at the agent.
    hit, _ = cache.look(key, verify=chosen.verify, strict=False)
    if hit is not None:
        return _cached(layer, hit.path)
    return _convert(cache, key, layer, chosen, progress)


def _convert(cache: Cache, key: str | None, layer: str, chosen: Settings, progress: Progress | None) -> Path:
    limit = Limit(chosen.timeout)
    way = choose_way(
        chosen.engine,
        (),
        chosen.injector,
        oci2rootfs=None if chosen.oci2rootfs == _settings.FORMER_OCI2ROOTFS else chosen.oci2rootfs,
        busybox=None if chosen.busybox == _settings.FORMER_BUSYBOX else chosen.busybox,
    )

    def injecting() -> None:
        log.info(
            "injecting vm-agent into rootfs",
            agent=chosen.agent,
            layer=layer,
            rootfs=target,
            injector=way.injector,
        )

    options = core_options(
        image_shape(),
        agent=chosen.agent,
        files=(),
        threads=None,
        agent_check=chosen.agent_check,
        sync=True,
        progress=limit.watch(progress),
    )
    job = Job.of(layer, options, limit=limit, injecting=injecting)
    identity: Identity | None = None
    if key is None:
        identity = identify(way, job, chosen.key, cache.memory())
        key = identity.key
    target = cache.entry(key)

    def building() -> None:
        log.info("converting overlay2 layer to ext4", layer=layer, rootfs=target, engine=way.engine)

    def before_publishing() -> None:
        if identity is not None:
            demand_unchanged(identity, job)

    result = build_entry(
        cache,
        key,
        way,
        job,
        verify=chosen.verify,
        # Also what older agents made, and what a guest wrote to, is good enough.
        strict=False,
        building=building,
        before_publishing=before_publishing,
    )
    if result.cached:
        return _cached(layer, target)
    for warning in result.warnings:
        log.warning(warning, layer=layer, rootfs=target)
    log.info("rootfs ready", layer=layer, rootfs=target, seconds=result.seconds)
    return result.path


def _cached(layer: str, path: str) -> Path:
    log.info("using cached rootfs", layer=layer, rootfs=path)
    return Path(path)
