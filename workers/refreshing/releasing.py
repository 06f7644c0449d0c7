"""Uncordoning what a refresh left behind that was cancelled, or lost for good, while its worker was dead."""

import structlog

from shared.database import database
from shared.errors import ErrorClass, WorkError
from shared.refreshes.releasing import mark_released, unreleased
from workers.refreshing.chosen import fleet

log = structlog.get_logger(__name__)


def release_left_over() -> None:
    """Release the nodes of every ended refresh, as far as the cluster answers; the sweep has it done again."""
    with database().reading() as session:
        left = unreleased(session)
    for job_id in left:
        try:
            released = fleet().release(job_id)
        except WorkError as error:
            if error.error_class != ErrorClass.INVALID:
                log.warning("nodes cannot be released", job_id=job_id, error=error.message)
                return
            released = []  # there is no cluster, so nothing that could be cordoned
        if released:
            log.warning("nodes were left cordoned and are released", job_id=job_id, nodes=released)
        with database().writing() as session:
            mark_released(session, job_id)
