"""Deliver every message twice: each message in Redis' queues, or not acknowledged yet, is sent once more."""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from shared.jobs.queues import Queues

POLL_INTERVAL_SECONDS = 0.02
UNACKNOWLEDGED = "unacked"
"""The key under which Celery's Redis transport keeps messages that are not acknowledged yet."""


class Duplicator:
    """A thread that sends each message a second time."""

    def __init__(self, url: str) -> None:
        self.copied = 0
        self._url = url
        self._known: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duplicator", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with redis.Redis.from_url(self._url, socket_timeout=2, socket_connect_timeout=2) as client:
            while not self._ended.wait(POLL_INTERVAL_SECONDS):
                with suppress(redis.RedisError):  # Redis is stopped at times
                    self._look(client)

    def _look(self, client: redis.Redis) -> None:
        for queue in Queues.ALL:
            for message in client.lrange(queue, 0, -1):
                self._copy(client, queue, json.loads(message))
        for delivered in client.hvals(UNACKNOWLEDGED):
            message, _exchange, queue = json.loads(delivered)
            self._copy(client, queue, message)

    def _copy(self, client: redis.Redis, queue: str, message: dict[str, Any]) -> None:
        tag = message["properties"]["delivery_tag"]
        if tag in self._known:
            return
        copy = str(uuid.uuid4())
        self._known |= {tag, copy}
        message["properties"]["delivery_tag"] = copy
        client.lpush(queue, json.dumps(message))
        self.copied += 1


@contextmanager
def duplicate_messages(url: str) -> Iterator[Duplicator]:
    """Deliver every message of this Redis twice during the block."""
    duplicator = Duplicator(url)
    duplicator.start()
    try:
        yield duplicator
    finally:
        duplicator.stop()
