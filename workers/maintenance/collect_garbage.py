"""Bringing this machine's image store back to its size, after jobs; what jobs wait for is never taken."""

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.db.models import Build, Job
from shared.db.models.jobs import LIVE_STATES
from shared.errors import WorkError
from shared.settings import settings
from workers.images.factory import image_store
from workers.images.layout import LayoutStore

log = structlog.get_logger(__name__)


def collect_if_full() -> None:
    """Remove what was not used for longest, if the store has outgrown its setting or its disk.

    Best effort: after the next job that adds something, or finds no room for it, it is tried again.
    """
    try:
        store = image_store()
        if not isinstance(store, LayoutStore):
            return
        target_bytes = store.collection_target(settings().store_max_bytes)
        if target_bytes is not None:
            _collect(store, target_bytes)
    except (WorkError, SQLAlchemyError, OSError) as error:
        log.warning("the image store was not collected", error=str(error))


def _collect(store: LayoutStore, target_bytes: int) -> None:
    with database().reading() as session:
        keep = _awaited_images(session)
    done = store.collect(target_bytes, keep)
    if done is not None:
        log.info("image store collected", before=done.bytes_before, after=done.bytes_after, target=target_bytes)


def _awaited_images(session: Session) -> set[str]:
    """The manifests of the images that waiting and running pushes are about."""
    made = (
        select(Build.manifest_digest)
        .join(Job, Job.build_id == Build.id)
        .where(Job.state.in_(LIVE_STATES), Build.manifest_digest.is_not(None))
    )
    return {digest for digest in session.scalars(made) if digest is not None}
