"""Check whether a registry allows the pushes of a default, for the response to setting it."""

from collections.abc import Sequence

from shared.db.models import DefaultRegistry, Registry
from shared.errors import WorkError
from shared.registries.access import RegistryCheck, address_of, check_registry, client_of
from shared.registries.credentials import credential_provider

CHECKED_NAME = "longshore-check"
"""In place of a name where the pushes are not of one algorithm."""


def check_push(
    registry: Registry, defaults: Sequence[DefaultRegistry] = (), *, repository: str = CHECKED_NAME
) -> RegistryCheck:
    """Ask a registry what it allows with the credentials that would push to this repository below its path.

    Credentials or options that cannot be used are part of the result, because they are stored already.
    """
    path = f"{address_of(registry).path}/{repository}".lstrip("/")
    try:
        with client_of(registry, credential_provider(registry).for_push(None, defaults)) as client:
            return check_registry(client, path)
    except WorkError as error:
        return RegistryCheck(message=error.message)
