"""Containers on the Docker engine."""

from docker import APIClient
from docker.errors import APIError, NotFound

from workers.docker.connection import engine, engine_errors


def remove_container(container: str, client: APIClient | None = None) -> None:
    """Remove a container with its volumes, even while it runs; a no-op if it is gone.

    `client` is used for its engine; the default is the engine that is configured now.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    with engine_errors():
        try:
            (client or engine()).remove_container(container, v=True, force=True)
        except NotFound:
            return
        except APIError as error:
            if "already in progress" not in str(error.explanation):
                raise
