"""The image store of this installation, as its settings choose it."""

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
    """The home registry where there is one, else the layout in the data directory.

    Raises:
        WorkError: the home registry's settings name none (unavailable: the job waits until they do).
    """
    chosen = settings()
    if not chosen.home_registry:
        return _layout(chosen.store_dir)
    password = chosen.home_registry_password.get_secret_value() if chosen.home_registry_password else ""
    try:
        address = RegistryAddress.parse(chosen.home_registry)
        credentials = Credentials(chosen.home_registry_username, password) if password else None
    except (InvalidAddressError, InvalidCredentialsError) as error:
        raise WorkError(ErrorClass.UNAVAILABLE, f"LONGSHORE_HOME_REGISTRY cannot be used: {error}") from None
    return _home(address, credentials, chosen.home_registry_ca)


@lru_cache(maxsize=4)
def _layout(directory: Path) -> LayoutStore:
    return LayoutStore(directory)


@lru_cache(maxsize=4)
def _home(address: RegistryAddress, credentials: Credentials | None, ca: Path | None) -> HomeRegistry:
    return HomeRegistry(address, credentials, ca_certificate=ca.read_text() if ca else None)
