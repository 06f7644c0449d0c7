"""The image store that the settings select, and its garbage collection after a job.

Images that jobs need are never removed.
"""

from functools import lru_cache
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import database
from shared.db.models import Build, Job
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ErrorClass, WorkError
from shared.registry.address import InvalidAddressError, RegistryAddress
from shared.registry.credentials import Credentials, InvalidCredentialsError
from shared.settings import settings
from workers.images.home_registry import HomeRegistry
from workers.images.image_store import ImageStore
from workers.images.layout import LayoutStore

log = structlog.get_logger(__name__)

_IMAGES_OF_LIVE_JOBS = (
    select(Build.manifest_digest)
    .join(Job, Job.build_id == Build.id)
    .where(Job.state.in_(LIVE_STATES), Build.manifest_digest.is_not(None))
)


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


def collect_if_full() -> None:
    """Remove the least recently used images if the store is above its limit or its disk was full.

    Best effort: it is tried again after the next job that adds a blob or finds the disk full.
    """
    try:
        store = image_store()
        if not isinstance(store, LayoutStore):
            return
        target_bytes = store.collection_target(settings().store_max_bytes)
        if target_bytes is None:
            return
        with database().reading() as session:
            keep = {digest for digest in session.scalars(_IMAGES_OF_LIVE_JOBS) if digest is not None}
        result = store.collect(target_bytes, keep)
        if result is not None:
            log.info("image_store_collected", before=result.bytes_before, after=result.bytes_after, target=target_bytes)
    except (WorkError, SQLAlchemyError, OSError) as error:
        log.warning("image_store_not_collected", error=str(error))
