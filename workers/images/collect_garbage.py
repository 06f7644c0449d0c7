"""Reduce this machine's image store to its size limit after a job; images that jobs need are never removed."""

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import database
from shared.db.models import Build, Job
from shared.db.models.jobs import LIVE_STATES
from shared.errors import WorkError
from shared.settings import settings
from workers.images.factory import image_store
from workers.images.layout import LayoutStore

log = structlog.get_logger(__name__)

_IMAGES_OF_LIVE_JOBS = (
    select(Build.manifest_digest)
    .join(Job, Job.build_id == Build.id)
    .where(Job.state.in_(LIVE_STATES), Build.manifest_digest.is_not(None))
)


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
