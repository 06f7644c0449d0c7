"""Limit the concurrent requests of git clients: per key, per owner, and of all callers together.

One process serves git, so it counts by itself. A request above a limit is refused at once and does not wait.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

from api.errors import ApiError, Code
from api.proxy_headers import client_network
from shared.settings import settings

RETRY_SECONDS = 5
MAX_DISCARDS = 8
MAX_DISCARDS_PER_ADDRESS = 4
"""Limits of the concurrent requests whose bodies are read only so that their senders get the error."""

Kind = Literal["fetches", "pushes"]


class ConcurrencyLimits:
    """The requests in progress in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counter[tuple[str, str]]()

    @contextmanager
    def request(self, kind: Kind, *, owner: str, key_id: str) -> Iterator[None]:
        """Count a fetch or push as long as the block runs.

        Raises:
            ApiError: the key or its owner has too many in progress (429), or all callers together (503).
        """
        configured = settings()
        if kind == "fetches":
            per_key, per_owner = configured.git_fetches_per_key, configured.git_fetches_per_owner
        else:
            per_key, per_owner = configured.git_pushes_per_key, configured.git_pushes_per_owner
        limits = [
            ((f"{kind} of a key", key_id), per_key, 429, f"This key has {per_key} {kind} in progress already"),
            ((f"{kind} of an owner", owner), per_owner, 429, f"{owner} has {per_owner} {kind} in progress already"),
            (("requests", ""), configured.git_threads * 3 // 4, 503, "The git service is busy"),
        ]
        counted = [counter for counter, *_ in limits]
        with self._lock:
            for counter, limit, status, reason in limits:
                if self._counts[counter] >= limit:
                    raise ApiError(
                        status,
                        Code.INVALID_REQUEST,
                        f"{reason}; retry in {RETRY_SECONDS} s.",
                        retry_after=RETRY_SECONDS,
                    )
            self._counts.update(counted)
        try:
            yield
        finally:
            self._release(counted)

    @contextmanager
    def discard(self, address: str) -> Iterator[bool]:
        """Count a body that is only read to its end; give False if there are too many of these already."""
        counted = [("discards", client_network(address)), ("discards", "")]
        with self._lock:
            is_allowed = self._counts[counted[0]] < MAX_DISCARDS_PER_ADDRESS and self._counts[counted[1]] < MAX_DISCARDS
            if is_allowed:
                self._counts.update(counted)
        try:
            yield is_allowed
        finally:
            if is_allowed:
                self._release(counted)

    def _release(self, counted: list[tuple[str, str]]) -> None:
        with self._lock:
            for counter in counted:
                self._counts[counter] -= 1
                if not self._counts[counter]:
                    del self._counts[counter]


@cache
def concurrency_limits() -> ConcurrencyLimits:
    return ConcurrencyLimits()
