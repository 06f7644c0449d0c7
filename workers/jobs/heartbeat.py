"""Keeping a claim while its work runs: a thread looks whether it holds, writes what moved, and renews the lease."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

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
WRITE_SECONDS = 1.0


class Heartbeat:
    """While the block runs, the claim is held; when it is lost, `stop` interrupts the work within half a second.

    `writes` is called in the thread each second, in a transaction of its own, to write down what has moved since;
    `moved` is called by the work itself: a lease over work that does not move is let go after a limit.
    """

    def __init__(self, database: Database, claim: Claim, settings: Settings, writes: Callable[[Session], None]) -> None:
        self.stop = CancelToken()
        self._database = database
        self._claim = claim
        self._settings = settings
        self._writes = writes
        self._ended = threading.Event()
        self._renewed_at = self._moved_at = self._written_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"lease-{claim.job_id}", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def record_progress(self, *, rests: float = 0) -> None:
        """The work has moved, and may rightly stand still for so many seconds now before its limit for that begins."""
        self._moved_at = time.monotonic() + rests

    def hold_for(self, seconds: float) -> None:
        """Make sure that the claim holds now, and for at least so many seconds more; from the work's own thread.

        Raises:
            FenceLostError: the job was ended or taken over.
        """
        with self._database.reading() as session:
            if not still_held(session, self._claim):
                raise FenceLostError
        # Reckoned after the look, which may have taken its time.
        now = time.monotonic()
        if self._settings.lease_seconds - (now - self._renewed_at) < seconds:
            with self._database.writing() as session:
                renew_lease(session, self._claim, lease_seconds=self._settings.lease_seconds)
            self._renewed_at = now

    def _run(self) -> None:
        while not self._ended.wait(POLL_INTERVAL_SECONDS):
            try:
                self._look()
            except FenceLostError as lost:
                self.stop.cancel(str(lost))
                return
            except Exception as error:  # whatever it is: without this thread nobody would stop the work
                known = isinstance(error, SQLAlchemyError)
                log.warning("the heartbeat was not written", error=type(error).__name__, exc_info=not known)
                if time.monotonic() - self._renewed_at > self._settings.lease_seconds:
                    self.stop.cancel("the lease could not be renewed: the database does not answer")
                    return

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._moved_at > self._settings.stuck_seconds:
            raise FenceLostError(f"the work has not moved for {self._settings.stuck_seconds} s")
        due = now - self._renewed_at >= self._settings.heartbeat_seconds
        if not due:
            with self._database.reading() as session:
                if not still_held(session, self._claim):
                    raise FenceLostError
            if now - self._written_at < WRITE_SECONDS:
                return
        with self._database.writing() as session:
            if due:
                renew_lease(session, self._claim, lease_seconds=self._settings.lease_seconds)
            self._writes(session)
        self._written_at = now
        if due:
            self._renewed_at = now
