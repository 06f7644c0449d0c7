"""Rate limits per owner and minute: counted for all processes in Redis, or in this process if Redis is unreachable."""

import os
import re
import time
from functools import cache

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisError
from typing_extensions import override

from api.errors import ApiError, Code
from api.proxy_headers import client_network
from shared.settings import settings

log = structlog.get_logger(__name__)

REDIS_TIMEOUT_SECONDS = 0.5
REDIS_RETRY_INTERVAL_SECONDS = 10.0
"""Seconds after a failure of Redis during which this process counts alone."""
MAX_AUDITED_DENIALS = 60
"""Denials per owner, minute and process that are written into the audit trail."""
MAX_COUNTERS = 10_000
"""Counters in memory above which expired ones are removed."""


class ProcessStorage(MemoryStorage):
    """The counters of one process. The library's own storage starts a thread at nearly every count, to expire them."""

    @override
    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and return the count of this window, which ends `expiry` seconds after its first count."""
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
    """The rate limits as one process counts them; created after the fork.

    Every `count_…` method raises ApiError if there were too many requests within a minute. All keys of an owner count
    together, because owners make as many keys as they like.
    """

    def __init__(self) -> None:
        self._local = FixedWindowRateLimiter(ProcessStorage())
        self._redis = _redis_limiter()
        self._redis_retry_at = 0.0

    def count_change(self, owner: str) -> None:
        self._count("changes", owner, settings().rate_limit_changes, in_redis=True)

    def count_read(self, owner: str) -> None:
        """Count a request that reads: in this process only, because reads must stay fast."""
        self._count("reads", owner, settings().rate_limit_reads, in_redis=False)

    def count_call(self, owner: str) -> None:
        """Count a call of an algorithm, in this process only."""
        self._count("calls", owner, settings().rate_limit_calls, in_redis=False)

    def count_git(self, owner: str) -> None:
        """Count a request of a git client; a clone or push consists of two or three."""
        self._count("git requests", owner, settings().rate_limit_git, in_redis=True)

    def count_unknown(self, address: str) -> None:
        """Count a request without a known key, of an address or, in IPv6, of the network that one client has."""
        self._count(
            "requests without a known key", client_network(address), settings().rate_limit_unknown, in_redis=False
        )

    def count_source_webhook(self, address: str, algorithm: str) -> None:
        """Count a webhook of a repository, whoever sent it, of its address and of the algorithm that it names.

        One address has half of an algorithm's share, so that it keeps no other sender out.
        """
        network, per_algorithm = client_network(address), settings().rate_limit_algorithm_webhooks
        self._count("webhooks", network, settings().rate_limit_source_webhooks, in_redis=False)
        self._count(
            "webhooks for one algorithm from one address",
            f"{network} {algorithm}",
            -(-per_algorithm // 2),
            in_redis=False,
        )
        self._count("webhooks for one algorithm", algorithm, per_algorithm, in_redis=False)

    def may_audit_denial(self, owner: str) -> bool:
        """Count a denial, and return whether to write it into the audit trail: an owner must not flood it."""
        return self._local.hit(RateLimitItemPerMinute(MAX_AUDITED_DENIALS, namespace="longshore:denials"), owner)

    def _count(self, requests: str, caller: str, maximum: int, *, in_redis: bool) -> None:
        if maximum == 0:
            return
        limit = RateLimitItemPerMinute(maximum, namespace=f"longshore:{requests.replace(' ', '-')}")
        if in_redis and self._redis is not None and time.monotonic() >= self._redis_retry_at:
            try:
                self._hit(self._redis, limit, requests, caller)
            except (RedisError, OSError) as error:
                log.warning("redis_unreachable_for_rate_limits", error=type(error).__name__)
                self._redis_retry_at = time.monotonic() + REDIS_RETRY_INTERVAL_SECONDS
            else:
                return
        self._hit(self._local, limit, requests, caller)

    def _hit(self, limiter: FixedWindowRateLimiter, limit: RateLimitItemPerMinute, requests: str, caller: str) -> None:
        if limiter.hit(limit, caller):
            return
        seconds = max(1, round(limiter.get_window_stats(limit, caller).reset_time - time.time()) + 1)
        raise ApiError(
            429,
            Code.INVALID_REQUEST,
            f"More than {limit.amount} {requests} within a minute; retry in {seconds} s.",
            retry_after=seconds,
        )


def rate_limits() -> RateLimits:
    return _rate_limits_of(os.getpid())


@cache
def _rate_limits_of(_pid: int) -> RateLimits:
    return RateLimits()


def to_redis_py_url(url: str) -> str:
    """Convert a Redis URL of kombu to redis-py: they differ in unix sockets, database numbers and TLS options."""
    if url.startswith("redis+socket://"):
        url = url.replace("redis+socket://", "redis+unix://", 1).replace("virtual_host=", "db=", 1)
    return re.sub(r"(?<=ssl_cert_reqs=)CERT_(\w+)", lambda match: match[1].lower(), url)


def _redis_limiter() -> FixedWindowRateLimiter | None:
    url = settings().redis_url
    if not url:
        return None
    try:
        return FixedWindowRateLimiter(
            RedisStorage(
                to_redis_py_url(url),
                socket_timeout=REDIS_TIMEOUT_SECONDS,
                socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            )
        )
    except (RedisError, OSError) as error:
        log.warning("redis_unreachable_for_rate_limits", error=type(error).__name__)
        return None
