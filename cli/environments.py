"""`longshore environments`: show the environments that algorithms can be built in, and whether they can be used."""

import click

from cli.common import data_dir_option, print_table, set_up
from shared.environments import environments
from shared.errors import WorkError
from workers.docker.images import image_id_of


@click.command("environments")
@data_dir_option
def command() -> None:
    """Show the environments: name, id, base image, and whether the Docker engine (DOCKER_HOST) has that image.

    An image that the engine does not have is pulled by the first build that needs it. LONGSHORE_BASE_IMAGE,
    LONGSHORE_PYTHON_VERSIONS, LONGSHORE_PYTHON_IMAGE and LONGSHORE_ENVIRONMENTS decide what is there.
    """
    set_up("environments")
    print_table(
        ("Name", "ID", "Display name", "Base image", "On the engine"),
        [(one.name, one.id, one.display_name, one.base_image, _presence(one.base_image)) for one in environments()],
        unwrapped=("ID",),
    )


def _presence(base_image: str) -> str:
    try:
        return "no" if image_id_of(base_image) is None else "yes"
    except WorkError:
        return "the engine does not respond"
