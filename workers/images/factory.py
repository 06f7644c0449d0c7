"""The image store that the settings select."""

from functools import lru_cache
from pathlib import Path

from shared.errors import ErrorClass, WorkError
from shared.registry.address import InvalidAddressError, RegistryAddress
from shared.registry.credentials import Credentials, InvalidCredentialsError
from shared.settings import settings
from workers.images.home_registry import HomeRegistry
from workers.images.image_store import ImageStore
from workers.images.layout import LayoutStore


def image_store() -> ImageStore:
    """Return the home registry if there is one, or else the layout in the data directory.

    Raises:
        WorkError: the settings of the home registry are invalid (unavailable: the job waits until they are fixed).

    """
    current = settings()
    if not current.home_registry:
        return _layout(current.store_dir)
    password = current.home_registry_password.get_secret_value() if current.home_registry_password else ""
    try:
        address = RegistryAddress.parse(current.home_registry)
        credentials = Credentials(current.home_registry_username, password) if password else None
    except (InvalidAddressError, InvalidCredentialsError) as error:
        raise WorkError(ErrorClass.UNAVAILABLE, f"LONGSHORE_HOME_REGISTRY cannot be used: {error}") from None
    return _home_registry(address, credentials, current.home_registry_ca)


@lru_cache(maxsize=4)
def _layout(directory: Path) -> LayoutStore:
    return LayoutStore(directory)


@lru_cache(maxsize=4)
def _home_registry(address: RegistryAddress, credentials: Credentials | None, ca: Path | None) -> HomeRegistry:
    return HomeRegistry(address, credentials, ca_certificate=ca.read_text() if ca else None)
