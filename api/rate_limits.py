"""How much one caller may ask, per minute: counted for all processes in Redis, or in this one where Redis is away."""

import os
import re
import time
from functools import cache

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisError

from api.error_codes import ApiError, Code
from shared.settings import settings

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 0.5
AWAY_SECONDS = 10.0
"""After Redis did not answer it is left alone for this long."""
MAX_DENIALS = 60
"""So many refusals of one key within a minute are worth a line in the audit trail, in each process."""


MAX_COUNTERS = 10_000
"""So many are kept in memory before those of minutes that are over are cleared away."""


class CountersHere(MemoryStorage):
    """The counters of this process alone. The library's own starts a thread at nearly every count, to clear away."""

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; the number within this window, of `expiry` seconds from its first count."""
        now = time.time()
        with self.locks[""]:
            if len(self.expirations) > MAX_COUNTERS:
                for each in [each for each, ends_at in self.expirations.items() if ends_at <= now]:
                    self.clear(each)
            if self.expirations.get(key, 0) <= now:
                self.storage[key], self.expirations[key] = 0, now + expiry
            self.storage[key] += amount
            return self.storage[key]


class RateLimits:
    """The counters of one process; made after the fork."""

    def __init__(self) -> None:
        self._here = FixedWindowRateLimiter(CountersHere())
        self._everywhere = _shared_limiter()
        self._away_until = 0.0

    def count_change(self, key_id: str) -> None:
        """Count a request that changes something.

        Raises:
            ApiError: too many with this key within a minute.
        """
        self._count("changes", key_id, settings().rate_limit_changes, everywhere=True)

    def count_read(self, key_id: str) -> None:
        """Count a request that reads: in this process only, for reading must stay quick.

        Raises:
            ApiError: too many with this key within a minute.
        """
        self._count("reads", key_id, settings().rate_limit_reads, everywhere=False)

    def count_call(self, key_id: str) -> None:
        """Count a call of an algorithm: in this process only, as reading is.

        Raises:
            ApiError: too many with this key within a minute.
        """
        self._count("calls", key_id, settings().rate_limit_calls, everywhere=False)

    def count_git(self, key_id: str) -> None:
        """Count a request of a git client, of which a clone or push has two or three.

        Raises:
            ApiError: too many with this key within a minute.
        """
        self._count("git requests", key_id, settings().rate_limit_git, everywhere=True)

    def count_unknown(self, address: str) -> None:
        """Count a request without a key that is known here.

        Raises:
            ApiError: too many from this address within a minute.
        """
        self._count("requests without a known key", address, settings().rate_limit_unknown, everywhere=False)

    def is_worth_noting(self, key_id: str) -> bool:
        """Whether one more refusal of this key is to be written down; nobody fills the audit trail by being refused."""
        return self._here.hit(RateLimitItemPerMinute(MAX_DENIALS, namespace="longshore:denials"), key_id)

    def _count(self, what: str, who: str, most: int, *, everywhere: bool) -> None:
        if most == 0:
            return
        limit = RateLimitItemPerMinute(most, namespace=f"longshore:{what.replace(' ', '-')}")
        limiter = self._everywhere if everywhere and time.monotonic() >= self._away_until else None
        if limiter is not None:
            try:
                self._hit(limiter, limit, what, who)
            except (RedisError, OSError) as error:
                log.warning("requests are counted here only, Redis does not answer", error=type(error).__name__)
                self._away_until = time.monotonic() + AWAY_SECONDS
            else:
                return
        self._hit(self._here, limit, what, who)

    def _hit(self, limiter: FixedWindowRateLimiter, limit: RateLimitItemPerMinute, what: str, who: str) -> None:
        if limiter.hit(limit, who):
            return
        seconds = max(1, round(limiter.get_window_stats(limit, who).reset_time - time.time()) + 1)
        raise ApiError(
            429,
            Code.INVALID_REQUEST,
            f"More than {limit.amount} {what} within a minute; go on in {seconds} s.",
            retry_after=seconds,
        )


def rate_limits() -> RateLimits:
    """The counters of this process."""
    return _of_process(os.getpid())


@cache
def _of_process(_pid: int) -> RateLimits:
    return RateLimits()


def respelled(url: str) -> str:
    """An address of Redis as kombu takes it, as redis-py does: unix sockets, their database, and TLS differ."""
    if url.startswith("redis+socket://"):
        url = url.replace("redis+socket://", "redis+unix://", 1).replace("virtual_host=", "db=", 1)
    return re.sub(r"(?<=ssl_cert_reqs=)CERT_(\w+)", lambda found: found[1].lower(), url)


def _shared_limiter() -> FixedWindowRateLimiter | None:
    url = settings().redis_url
    if not url:
        return None
    try:
        storage: Storage = RedisStorage(
            respelled(url), socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        )
    except (RedisError, OSError) as error:
        log.warning("requests are counted here only, Redis does not answer", error=type(error).__name__)
        return None
    return FixedWindowRateLimiter(storage)
