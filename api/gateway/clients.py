"""Identify clients, and limit the requests that each of them has in progress.

A client is an owner, once a service has said whose key it is; before that it is a key, and without a key an address.
Anybody can invent keys, so keys that no service has accepted yet are also counted together by their address.
"""

import asyncio
import contextlib
import hashlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from aiohttp import web

from api.authorization_header import secret_of
from api.proxy_headers import client_network, is_in, last_untrusted_hop
from shared.errors import LimitReachedError, UnavailableError

MAX_REMEMBERED_KEYS = 10_000
MAX_REQUESTS = 2048
"""Maximum of all requests in progress, with their bodies and responses."""
MAX_CLIENT_REQUESTS = MAX_REQUESTS // 8
MAX_UNKNOWN_REQUESTS = MAX_REQUESTS // 4
"""Maximum of all keys of one address that no service has accepted."""
TURN_TIMEOUT_SECONDS = 60
"""How long a request waits until others of the same client have ended."""


@dataclass(frozen=True)
class Client:
    """The sender of a request."""

    name: str
    address: str
    key_digest: bytes | None
    is_known: bool
    """Whether a service has accepted its key."""


class Clients:
    """Remembers whose keys the services have accepted."""

    def __init__(self, trusted_proxies: tuple[str, ...]) -> None:
        self._trusted = trusted_proxies
        self._owners: OrderedDict[bytes, str] = OrderedDict()

    def identify(self, request: web.BaseRequest) -> Client:
        address = client_network(self._address_of(request))
        header = request.headers.get("Authorization", "").strip()
        if not header:
            return Client(f"address {address}", address, None, is_known=False)
        secret = secret_of(header) or header  # a key has one name, in whichever form it is sent
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        owner = self._owners.get(digest)
        if owner is None:
            return Client(f"key {digest.hex()}", address, digest, is_known=False)
        self._owners.move_to_end(digest)
        return Client(f"owner {owner}", address, digest, is_known=True)

    def learn(self, client: Client, *, owner: str | None, status: int) -> None:
        """Remember the owner of a key, or forget a key that is no longer accepted."""
        if client.key_digest is None:
            return
        if owner is not None:
            self._owners[client.key_digest] = owner
            self._owners.move_to_end(client.key_digest)
            if len(self._owners) > MAX_REMEMBERED_KEYS:
                self._owners.popitem(last=False)
        elif status == 401:
            self._owners.pop(client.key_digest, None)

    def _address_of(self, request: web.BaseRequest) -> str:
        """Return the peer, or behind a trusted proxy the last address that is not a trusted proxy itself."""
        peer = request.remote or "unknown"
        forwarded = request.headers.getall("X-Forwarded-For", [])
        if not forwarded or not is_in(peer, self._trusted):
            return peer
        return last_untrusted_hop(",".join(forwarded), self._trusted)


class RequestCounts:
    """Counts the requests in progress, of all clients and of each."""

    def __init__(self) -> None:
        self._total = 0
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def counted(self, client: Client) -> Iterator[None]:
        """Count a request while the block runs.

        Raises:
            LimitReachedError: the client has too many in progress already.
            UnavailableError: all clients together have.
        """
        names = _counted_names(client)
        limits = (MAX_CLIENT_REQUESTS, MAX_UNKNOWN_REQUESTS)
        if any(self._counts[name] >= limit for name, limit in zip(names, limits, strict=False)):
            raise LimitReachedError(
                "Too many of your requests are in progress; send this one again when others have ended."
            )
        if self._total >= MAX_REQUESTS:
            raise UnavailableError("Too many requests are in progress; send this one again.")
        self._total += 1
        self._counts.update(names)
        try:
            yield
        finally:
            self._total -= 1
            for name in names:
                self._counts[name] -= 1
                if not self._counts[name]:
                    del self._counts[name]


class Turns:
    """Gives each client a share of the threads of a service. Its further requests wait.

    All keys of an address that no service has accepted have one and a half times that share together.
    """

    def __init__(self, *, client_places: int) -> None:
        self._places = client_places, client_places + client_places // 2
        self._queues: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, client: Client) -> AsyncIterator[None]:
        """Wait for a free place and hold it while the block runs.

        Raises:
            LimitReachedError: the client's other requests did not end in time.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(TURN_TIMEOUT_SECONDS):
                    for name, places in zip(_counted_names(client), self._places, strict=False):
                        await stack.enter_async_context(self._place(name, places))
            except TimeoutError:
                raise LimitReachedError(
                    f"Other requests of yours were in progress for {TURN_TIMEOUT_SECONDS} seconds; send this one again "
                    "when they have ended."
                ) from None
            yield

    def try_turn(self, client: Client) -> contextlib.AbstractAsyncContextManager[None] | None:
        """Return a turn without waiting; None if all places of the client are taken."""
        names = _counted_names(client)
        queues = [self._queues[name][0] for name in names if name in self._queues]
        return None if any(queue.locked() for queue in queues) else self.turn(client)

    @contextlib.asynccontextmanager
    async def _place(self, name: str, places: int) -> AsyncIterator[None]:
        queue, users = self._queues.get(name) or (asyncio.Semaphore(places), 0)
        self._queues[name] = queue, users + 1
        try:
            async with queue:
                yield
        finally:
            queue, users = self._queues[name]
            if users == 1:
                del self._queues[name]
            else:
                self._queues[name] = queue, users - 1


def _counted_names(client: Client) -> tuple[str, ...]:
    """Return the names under which the client's requests are counted."""
    if client.is_known:
        return (client.name,)
    return client.name, f"unknown {client.address}"
