"""Build images with the source's own Dockerfile, by the engine, and remove what interrupted builds left there."""

import tempfile
from collections.abc import Collection, Mapping
from typing import BinaryIO, cast

from shared.errors import ErrorClass, WorkError
from workers.builds.context import BuildContext, BuildLimits
from workers.builds.source_tree import SourceTree
from workers.docker.connection import NO_SPACE, disk_is_full, engine, engine_address, engine_errors, interruptible
from workers.docker.images import remove_container, remove_reference
from workers.docker.network import ensure_network
from workers.images.archive import archived

DOCKERFILE = "Dockerfile"
REVISION = "org.opencontainers.image.revision"
"""The label with the commit. The engine sets it in a step of its own, after those of the Dockerfile."""
ALGORITHM = "io.longshore.algorithm"
"""The label with OWNER/NAME: a fork has the same commits, and builds of its own."""
_MAX_CONTEXT_BYTES_IN_MEMORY = 1024 * 1024
_NO_OPERATION = "#(nop)"
"""Beginning of the command of a container that the engine creates for a step which runs nothing."""


def build_by_dockerfile(
    tree: SourceTree,
    reference: str,
    labels: Mapping[str, str],
    network: str,
    limits: BuildLimits,
    context: BuildContext,
) -> str:
    """Have the engine build the source with its Dockerfile, name the image `reference`, and return its id.

    Raises:
        WorkCancelledError: the build was cancelled.
        WorkError: a step of the Dockerfile failed, or the time is used up (invalid); the engine failed (transient);
            the engine or space on its disk is missing (unavailable).
    """
    image_id = None
    ensure_network(network)
    with tempfile.SpooledTemporaryFile(max_size=_MAX_CONTEXT_BYTES_IN_MEMORY) as archive:
        archive.writelines(archived(tree.entries("")))
        archive.seek(0)
        with interruptible(context.stop, context.deadline) as client:
            for event in client.build(
                fileobj=cast("BinaryIO", archive),
                custom_context=True,
                tag=reference,
                labels=dict(labels),
                rm=True,
                forcerm=True,
                # The engine's cache does not distinguish owners: a step could return another owner's result.
                nocache=True,
                decode=True,
                network_mode=network,
                container_limits={"memory": limits.memory_bytes, "memswap": limits.memory_bytes},
                use_config_proxy=False,
                timeout=int(context.deadline.left) + 1,
            ):
                # The engine reports a failure inside a response with status 200.
                if "error" in event:
                    message = str(event["error"])
                    if NO_SPACE in message.lower():
                        raise disk_is_full(f"the Docker engine at {engine_address()}")
                    raise WorkError(ErrorClass.INVALID, f"the source's own {DOCKERFILE} cannot be built: {message}")
                if "ID" in event.get("aux", {}):
                    image_id = str(event["aux"]["ID"])
                for line in str(event.get("stream", "")).splitlines():
                    context.log(line)
    if image_id is None:
        raise WorkError(ErrorClass.TRANSIENT, "the Docker engine ended the build without an image")
    return image_id


def remove_interrupted(algorithm: str, commit: str, keep: Collection[str] = ()) -> None:
    """Remove what interrupted builds of a commit of OWNER/NAME left on the engine, except images with these ids.

    That is containers which were never started and images without a name. No other build of the commit may be running.

    Raises:
        WorkError: the engine does not respond (unavailable).
    """
    filters = {"label": [f"{REVISION}={commit}", f"{ALGORITHM}={algorithm}"]}
    with engine_errors():
        containers = engine().containers(all=True, filters={**filters, "status": "created"})
    for container in containers:
        if _NO_OPERATION in container["Command"]:
            remove_container(container["Id"])
    with engine_errors():
        images = engine().images(filters={**filters, "dangling": True})
    for image in images:
        if image["Id"] not in keep:
            remove_reference(image["Id"])
