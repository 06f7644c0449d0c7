"""Clients that are kept for a moment after a push went well, for the next push to the same registry.

It begins with an open connection, a token and the knowledge of how the registry wants to be convinced, and what the
registry answered a moment ago it is not asked again. What changes of a registry, or of the credentials, changes the
client. After anything that went wrong none is kept.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from shared.cancellation import CancelToken
from shared.db.models import Registry
from shared.registries.client import client_of
from shared.registries.credentials import fingerprint
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials

IDLE_SECONDS = 5.0
"""A client that rested longer is not used again."""
ANSWERED_SECONDS = 1.0
"""For so long a registry is believed to be there and to take the credentials, as it said."""
MAX_CLIENTS = 8

Key = tuple[str, str, Credentials | None]


@dataclass
class PooledClient:
    """A client, and when its registry answered last that it takes the credentials, by the monotonic clock."""

    client: RegistryClient
    answered_at: float | None = None
    rests_since: float = 0.0

    @property
    def has_just_answered(self) -> bool:
        """Whether asking again would tell nothing new."""
        return self.answered_at is not None and time.monotonic() - self.answered_at < ANSWERED_SECONDS

    def ping(self) -> None:
        """Make sure that the registry is there and takes the credentials.

        Raises:
            WorkError: as `RegistryClient.ping`.
        """
        self.client.ping()
        self.answered_at = time.monotonic()


class ClientPool:
    """Those of one process, which does one push at a time."""

    def __init__(self) -> None:
        self._resting: dict[Key, PooledClient] = {}

    @contextmanager
    def client(self, registry: Registry, credentials: Credentials | None, stop: CancelToken) -> Iterator[PooledClient]:
        """A client of the registry for the length of the block, after which it is kept unless the block raises.

        Raises:
            WorkError: as `client_of`.
        """
        key = (registry.id, fingerprint(registry), credentials)
        kept = self._rested(key)
        if kept is None:
            kept = PooledClient(client_of(registry, credentials, cancel_token=stop))
            kept.client.reads_with_push_scope = True
        else:
            kept.client.set_cancel_token(stop)
        try:
            yield kept
        except BaseException:
            kept.client.close()
            raise
        self._rest(key, kept)

    def _rested(self, key: Key) -> PooledClient | None:
        kept = self._resting.pop(key, None)
        if kept is None or time.monotonic() - kept.rests_since < IDLE_SECONDS:
            return kept
        kept.client.close()
        return None

    def _rest(self, key: Key, kept: PooledClient) -> None:
        kept.rests_since = time.monotonic()
        self._resting[key] = kept
        while len(self._resting) > MAX_CLIENTS:
            self._resting.pop(next(iter(self._resting))).client.close()


@cache
def client_pool() -> ClientPool:
    """Those of this process."""
    return ClientPool()
