"""The confinement of every container that runs an algorithm."""

import posixpath
from collections.abc import Sequence
from typing import Any

from docker import APIClient
from docker.types import LogConfig, Mount, Ulimit

from shared.settings import settings
from workers.docker.images import described_image

TMP_PATH = "/tmp"  # noqa: S108 - in the container
NO_FILES_OF_THE_KERNEL = [Ulimit(name="core", soft=0, hard=0), Ulimit(name="msgqueue", soft=0, hard=0)]
"""No core dumps, which the kernel may write outside of the container, and no message queues, whose limit all algorithms
would share, because it is per user."""
LOG_LIMITS = {"max-size": "1m", "max-file": "2"}
"""Limits what an algorithm can write to the engine's disk by printing."""


def confined(client: APIClient, image: str, network: str, mounts: Sequence[Mount] = ()) -> dict[str, Any]:
    """Return the host configuration of a container that can harm only itself; its user is the caller's to set.

    Raises:
        WorkError: the engine does not respond (unavailable).
    """
    chosen = settings()
    config: dict[str, Any] = client.create_host_config(
        network_mode=network,
        mem_limit=chosen.serving_memory_bytes,
        memswap_limit=chosen.serving_memory_bytes,
        nano_cpus=int(chosen.serving_cpus * 1_000_000_000),
        pids_limit=chosen.serving_pids,
        read_only=True,
        # Compilers and caches of algorithms write there and run it; it counts as memory.
        tmpfs={TMP_PATH: f"rw,exec,nosuid,nodev,mode=1777,size={chosen.serving_tmp_bytes}"},
        mounts=[*mounts, *_volume_replacements(image, {str(mount["Target"]) for mount in mounts})],
        ulimits=NO_FILES_OF_THE_KERNEL,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        log_config=LogConfig(type="json-file", config=LOG_LIMITS),
    )
    return config


def _volume_replacements(image: str, mounted: set[str]) -> list[Mount]:
    """Return memory with a limit for each volume that the image declares: a volume would be on the engine's disk."""
    return [
        Mount(target=path, source=None, type="tmpfs", tmpfs_size=settings().serving_tmp_bytes)
        for path in ((described_image(image) or {}).get("Config") or {}).get("Volumes") or {}
        if posixpath.normpath(path) not in {TMP_PATH, *mounted}
    ]
