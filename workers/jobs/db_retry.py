"""Writing an end although the database is away for a moment: what was done is not to be done again for that."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from shared.settings import settings

log = structlog.get_logger(__name__)

RETRY_INTERVAL_SECONDS = 1.0
Result = TypeVar("Result")


def retry_db_write(write: Callable[[], Result]) -> Result:
    """What `write` returns, tried again while the database does not answer, for as long as a lease lasts.

    After that another worker may have the job, and does it again. A commit whose answer was lost is no harm: the
    fence is closed by it, and `write` says so.

    Raises:
        OperationalError, InterfaceError: the database stayed away.
    """
    deadline = time.monotonic() + settings().lease_seconds
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the database does not take the end of a job; tried again", error=type(error).__name__)
            time.sleep(RETRY_INTERVAL_SECONDS)
