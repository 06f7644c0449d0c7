"""The heartbeat of a claim: a thread that renews the lease and writes progress while the work runs."""

import threading
import time
from collections.abc import Callable
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.cancellation import CancelToken
from shared.db.engine import Database
from shared.fence import Claim, FenceLostError
from shared.jobs.leases import renew_lease, still_held
from shared.settings import Settings

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS = 0.5
WRITE_INTERVAL_SECONDS = 1.0


class Heartbeat:
    """Holds a claim while the block runs. When the claim is lost, `cancel_token` is cancelled within half a second.

    `write` is called in the thread each second, in a transaction of its own, to write progress. The work itself calls
    `record_progress`: work without progress for `stuck_seconds` loses its claim.
    """

    def __init__(self, database: Database, claim: Claim, settings: Settings, write: Callable[[Session], None]) -> None:
        self.cancel_token = CancelToken()
        self._database = database
        self._claim = claim
        self._settings = settings
        self._write = write
        self._ended = threading.Event()
        self._renewed_at = self._progressed_at = self._written_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"lease-{claim.job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def record_progress(self, *, pause_seconds: float = 0) -> None:
        """Note that the work has made progress. Its next `pause_seconds` do not count as being stuck."""
        self._progressed_at = time.monotonic() + pause_seconds

    def hold_for(self, seconds: float) -> None:
        """Make sure that the claim holds now, and for at least `seconds` more. Called in the thread of the work.

        Raises:
            FenceLostError: the job was ended or taken over.
        """
        self._check_claim()
        now = time.monotonic()  # after the check, which may have taken long
        if self._settings.lease_seconds - (now - self._renewed_at) < seconds:
            with self._database.writing() as session:
                renew_lease(session, self._claim, lease_seconds=self._settings.lease_seconds)
            self._renewed_at = now

    def _check_claim(self) -> None:
        with self._database.reading() as session:
            if not still_held(session, self._claim):
                raise FenceLostError

    def _run(self) -> None:
        while not self._ended.wait(POLL_INTERVAL_SECONDS):
            try:
                self._beat()
            except FenceLostError as lost:
                self.cancel_token.cancel(str(lost))
                return
            except Exception as error:  # of any kind: without this thread nothing would cancel the work
                log.warning(
                    "heartbeat_not_written",
                    error=type(error).__name__,
                    exc_info=not isinstance(error, SQLAlchemyError),
                )
                if time.monotonic() - self._renewed_at > self._settings.lease_seconds:
                    self.cancel_token.cancel("the lease could not be renewed: the database does not respond")
                    return

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._progressed_at > self._settings.stuck_seconds:
            raise FenceLostError(f"the work has made no progress for {self._settings.stuck_seconds} s")
        renewal_is_due = now - self._renewed_at >= self._settings.heartbeat_seconds
        if not renewal_is_due:
            self._check_claim()
            if now - self._written_at < WRITE_INTERVAL_SECONDS:
                return
        with self._database.writing() as session:
            if renewal_is_due:
                renew_lease(session, self._claim, lease_seconds=self._settings.lease_seconds)
            self._write(session)
        self._written_at = now
        if renewal_is_due:
            self._renewed_at = now
