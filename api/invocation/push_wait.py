"""Wait for the push that brings the image of a call, with one query at a time for all calls that wait for a version.

A call that waits holds a thread. So at most half of the places for calls wait, and few of those are one owner's.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.invocation.target import RETRY_SECONDS, AwaitedPush, NoImageError, Target, find_present_target
from shared.db.engine import database
from shared.db.models import Version
from shared.pulls.pending_push import PendingPush, find_pending_push

MIN_POLL_INTERVAL_SECONDS = 0.1
MAX_POLL_INTERVAL_SECONDS = 1.0
POLLS_PER_AGE = 10
"""The interval is this fraction of the time since the first call began to wait: a long push is polled seldom."""


class _Watch:
    """The push of one version, as all calls that wait for it see it."""

    def __init__(self, version: Version) -> None:
        self.waiting = 0
        self._version = version
        self._began_at = time.monotonic()
        self._polled_at = 0.0
        self._lock = threading.Lock()
        self._pending: PendingPush | None = None

    @property
    def interval(self) -> float:
        age = time.monotonic() - self._began_at
        return min(MAX_POLL_INTERVAL_SECONDS, max(MIN_POLL_INTERVAL_SECONDS, age / POLLS_PER_AGE))

    def poll(self) -> PendingPush | None:
        """Return the push as it was at most an interval ago."""
        with self._lock:
            if time.monotonic() - self._polled_at >= self.interval:
                with database().reading() as session:
                    self._pending = find_pending_push(session, self._version)
                self._polled_at = time.monotonic()
            return self._pending


class PushWaits:
    """The calls of one process that wait for a push."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[str, _Watch] = {}

    def wait(self, awaited: AwaitedPush, deadline: float, require_wanted: Callable[[], None]) -> Target:
        """Wait until the image of a version may run, and return its target. `deadline` is of the monotonic clock.

        `require_wanted` raises its own error when nobody waits for the call any more.

        Raises:
            NoImageError: the push failed, does not end soon, or did not end before the deadline.
            NotFoundError: the algorithm was deleted.
        """
        with self._watching(awaited.version) as watch:
            while True:
                push = watch.poll()
                if push is None or push.obstacle is not None:
                    found = find_present_target(awaited.version, awaited.algorithm)
                    if isinstance(found, Target):
                        return found
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _ended_too_late(awaited, push)
                time.sleep(min(left, watch.interval))
                require_wanted()

    @contextmanager
    def _watching(self, version: Version) -> Iterator[_Watch]:
        with self._lock:
            watch = self._watches.setdefault(version.id, _Watch(version))
            watch.waiting += 1
        try:
            yield watch
        finally:
            with self._lock:
                watch.waiting -= 1
                if not watch.waiting:
                    del self._watches[version.id]


def _ended_too_late(awaited: AwaitedPush, push: PendingPush | None) -> NoImageError:
    path = awaited.algorithm.path
    state = f"the push to {push.registry_url} did not end in time: {push.message}" if push else "no push ended in time."
    return NoImageError(
        awaited.algorithm,
        f"{path} waited for its image, and {state} The call was not begun; send it again.",
        retry_after=RETRY_SECONDS,
    )


push_waits = PushWaits()
