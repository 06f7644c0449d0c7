"""Limit the requests that hold a thread while they wait for something: in total, and for each owner.

A request gets a slot at once or fails: one that waited for a slot would hold a thread too.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from shared.errors import LimitReachedError, RequestError, UnavailableError
from shared.settings import settings

RETRY_SECONDS = 2


class OwnerSlots:
    """The slots of one process. `purpose` completes "requests that …" in messages."""

    def __init__(self, purpose: str, total: int, per_owner: int) -> None:
        self._purpose = purpose
        self._total = max(1, total)
        self._per_owner = max(1, min(per_owner, self._total))
        self._lock = threading.Lock()
        self._taken = Counter[str]()

    def acquire(self, owner: str) -> bool:
        """Take a slot for a request of this owner; return False if there is none left."""
        with self._lock:
            if self._taken[owner] >= self._per_owner or self._taken.total() >= self._total:
                return False
            self._taken[owner] += 1
            return True

    def release(self, owner: str) -> None:
        with self._lock:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Hold a slot during the block.

        Raises:
            LimitReachedError: the owner has as many as it may.
            UnavailableError: there is none left.
        """
        if not self.acquire(owner):
            raise self._refusal(owner)
        try:
            yield
        finally:
            self.release(owner)

    def _refusal(self, owner: str) -> RequestError:
        if self._taken.get(owner, 0) < self._per_owner:
            return UnavailableError(
                f"Too many requests that {self._purpose} are in progress; retry in {RETRY_SECONDS} s.",
                retry_after=RETRY_SECONDS,
            )
        return LimitReachedError(
            f"{self._per_owner} requests of {owner} that {self._purpose} are in progress here, and more are not "
            f"allowed at the same time; retry in {RETRY_SECONDS} s.",
            retry_after=RETRY_SECONDS,
        )


@cache
def wait_slots() -> OwnerSlots:
    """Return the slots of requests that wait for jobs: at most half of the process's threads."""
    threads = settings().api_threads
    return OwnerSlots("wait for jobs", threads // 2, threads // 4)


@cache
def remote_slots() -> OwnerSlots:
    """Return the slots of requests that ask a machine elsewhere: at most a quarter of the process's threads."""
    threads = settings().api_threads
    return OwnerSlots("ask a repository or registry elsewhere", threads // 4, threads // 8)


@cache
def push_wait_slots() -> OwnerSlots:
    """Return the slots of calls that wait for a push of their image: at most half of the process's calls."""
    threads = settings().calls_threads
    return OwnerSlots("call algorithms whose image is still being pushed", threads // 2, threads // 4)


@cache
def call_slots() -> OwnerSlots:
    """Return the slots of calls: those whose callers wait, and as many with `output=void`."""
    return OwnerSlots("call algorithms", 2 * settings().calls_threads, settings().calls_per_owner)
