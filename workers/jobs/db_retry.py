"""Write the end of a job, also when the database does not respond for a while: finished work is not done again."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.settings import settings

log = structlog.get_logger(__name__)

RETRY_INTERVAL_SECONDS = 1.0
Result = TypeVar("Result")


def retry_db_write(write: Callable[[Session], Result]) -> Result:
    """Run `write` in a transaction, retried while the database does not respond, for as long as a lease lasts.

    After that another worker may have the job. A commit whose response was lost does no harm: it has ended the
    claim, so that the retry raises `FenceLostError`.

    Raises:
        OperationalError, InterfaceError: the database did not respond in time.
    """
    deadline = time.monotonic() + settings().lease_seconds
    while True:
        try:
            with database().writing() as session:
                return write(session)
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > deadline:
                raise
            log.warning("job_end_not_written", error=type(error).__name__, retry_seconds=RETRY_INTERVAL_SECONDS)
            time.sleep(RETRY_INTERVAL_SECONDS)
