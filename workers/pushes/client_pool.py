"""Registry clients that are kept for a few seconds after a successful push, for the next push to the same registry.

A pooled client has an open connection, a token, and the authentication scheme of the registry; it need not ping again.
The key has all options of the registry and the credentials. A client is dropped after any error.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from shared.cancellation import CancelToken
from shared.db.models import Registry
from shared.registries.access import client_of
from shared.registries.credentials import fingerprint
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials

MAX_IDLE_SECONDS = 5.0
PING_TTL_SECONDS = 1.0
"""For so long after a ping the registry is assumed to be reachable and to accept the credentials."""
MAX_CLIENTS = 8

Key = tuple[str, str, Credentials | None]


@dataclass
class PooledClient:
    """A client, and the times of its last ping and of its last use, by the monotonic clock."""

    client: RegistryClient
    pinged_at: float | None = None
    idle_since: float = 0.0

    @property
    def was_pinged_recently(self) -> bool:
        return self.pinged_at is not None and time.monotonic() - self.pinged_at < PING_TTL_SECONDS

    def ping(self) -> None:
        """Ping the registry.

        Raises:
            WorkError: as `RegistryClient.ping`.

        """
        self.client.ping()
        self.pinged_at = time.monotonic()


class ClientPool:
    """The idle clients of one process, which does one push at a time."""

    def __init__(self) -> None:
        self._idle: dict[Key, PooledClient] = {}

    @contextmanager
    def client(self, registry: Registry, credentials: Credentials | None, stop: CancelToken) -> Iterator[PooledClient]:
        """Give a client of the registry for the block; it returns to the pool unless the block raises.

        Raises:
            WorkError: as `client_of`.

        """
        key = (registry.id, fingerprint(registry), credentials)
        pooled = self._idle.pop(key, None)
        if pooled is not None and time.monotonic() - pooled.idle_since >= MAX_IDLE_SECONDS:
            pooled.client.close()
            pooled = None
        if pooled is None:
            pooled = PooledClient(client_of(registry, credentials, cancel_token=stop))
            pooled.client.reads_with_push_scope = True
        else:
            pooled.client.set_cancel_token(stop)
        try:
            yield pooled
        except BaseException:
            pooled.client.close()
            raise
        pooled.idle_since = time.monotonic()
        self._idle[key] = pooled
        while len(self._idle) > MAX_CLIENTS:
            self._idle.pop(next(iter(self._idle))).client.close()


@cache
def client_pool() -> ClientPool:
    return ClientPool()
