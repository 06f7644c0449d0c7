"""What the engine itself leaves of a build by a Dockerfile that was cut short: containers never started, images without
a name."""

from collections.abc import Collection

from workers.engine.connection import engine, engine_errors
from workers.engine.container import remove_container
from workers.engine.images import remove_reference

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
