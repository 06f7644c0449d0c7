"""Images by the repository's own Dockerfile: the engine builds them, then they are kept like any other.

What the engine itself leaves of a build by a Dockerfile that was cut short: containers never started, images without
a name.
"""

import tempfile
from collections.abc import Collection, Mapping
from typing import BinaryIO

from shared.errors import ErrorClass, WorkError
from workers.builds.assembly.source_tree import SourceTree
from workers.builds.environment.container import remove_container
from workers.builds.limits import BuildLimits, BuildWatch
from workers.docker.connection import NO_SPACE, disk_is_full, engine, engine_address, engine_errors, interruptible
from workers.docker.images import remove_reference
from workers.images.archive import archived

DOCKERFILE = "Dockerfile"
_CONTEXT_IN_MEMORY_BYTES = 1024 * 1024


def build_by_dockerfile(
    tree: SourceTree, reference: str, labels: Mapping[str, str], network: str, limits: BuildLimits, watch: BuildWatch
) -> str:
    """Have the engine build the source by its Dockerfile, name the image `reference`, and give its id.

    Raises:
        Stopped: the stop was asked for.
        WorkError: a step of the Dockerfile failed, or the time is used up (invalid); the engine failed (transient);
            the engine or its disk's space is missing (unavailable).
    """
    with tempfile.SpooledTemporaryFile(max_size=_CONTEXT_IN_MEMORY_BYTES) as context:
        context.writelines(archived(tree.entries("")))
        context.seek(0)
        return _built(context, reference, labels, network, limits, watch)  # type: ignore[arg-type]


def _built(
    context: BinaryIO,
    reference: str,
    labels: Mapping[str, str],
    network: str,
    limits: BuildLimits,
    watch: BuildWatch,
) -> str:
    image_id = None
    with interruptible(watch.stop, watch.deadline) as client:
        for part in client.build(
            fileobj=context,
            custom_context=True,
            tag=reference,
            labels=dict(labels),
            rm=True,
            forcerm=True,
            decode=True,
            network_mode=network,
            container_limits={"memory": limits.memory_bytes, "memswap": limits.memory_bytes},
            use_config_proxy=False,
            timeout=int(watch.deadline.left) + 1,
        ):
            # The engine reports a failure inside an answer that began with 200.
            if "error" in part:
                raise _build_error(str(part["error"]))
            if "ID" in part.get("aux", {}):
                image_id = str(part["aux"]["ID"])
            for line in str(part.get("stream", "")).splitlines():
                watch.log(line)
    if image_id is None:
        raise WorkError(ErrorClass.TRANSIENT, "the Docker engine ended the build without an image")
    return image_id


def _build_error(said: str) -> WorkError:
    if NO_SPACE in said.lower():
        return disk_is_full(f"the Docker engine at {engine_address()}")
    return WorkError(ErrorClass.INVALID, f"the source's own {DOCKERFILE} cannot be built: {said}")


REVISION = "org.opencontainers.image.revision"
"""The label with the commit; the engine sets it in a step of its own, after those of the Dockerfile."""
ALGORITHM = "io.longshore.algorithm"
"""The label with OWNER/NAME: a fork has the same commits, and builds of its own."""
_STEP = "#(nop)"
"""How the command of a container begins that the engine makes for a step which runs nothing."""


def remove_cut_short(algorithm: str, commit: str, keep: Collection[str] = ()) -> None:
    """Remove what earlier builds of a commit of OWNER/NAME left, except the images with these ids.

    Only for whoever has the builds of that commit for himself at this moment.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    ours = {"label": [f"{REVISION}={commit}", f"{ALGORITHM}={algorithm}"]}
    with engine_errors():
        containers = engine().containers(all=True, filters={**ours, "status": "created"})
    for container in containers:
        if _STEP in container["Command"]:
            remove_container(container["Id"])
    with engine_errors():
        images = engine().images(filters={**ours, "dangling": True})
    for image in images:
        if image["Id"] not in keep:
            remove_reference(image["Id"])
