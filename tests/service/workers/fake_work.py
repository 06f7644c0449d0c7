"""A fake of builds and pushes: it does what a test specifies, under a real claim."""

import threading
from collections.abc import Callable
from typing import Self

from sqlalchemy.orm import Session

from shared.fence import Claim
from tests.concurrency import TIMEOUT_SECONDS
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat


def nothing(_session: Session) -> None:
    """Write nothing."""


class FakeWork:
    """A kind of work: called with a claim it returns the work, as `BuildWork` and `PushWork` do."""

    def __init__(
        self,
        do: Callable[[Heartbeat], object] = lambda _heartbeat: None,
        write: Callable[[Session], None] = nothing,
        finish: Finish = nothing,
    ) -> None:
        self._do = do
        self._write = write
        self._finish = finish
        self.claims: list[Claim] = []

    def __call__(self, claim: Claim) -> Self:
        self.claims.append(claim)
        return self

    def write(self, session: Session) -> None:
        self._write(session)

    def do(self, heartbeat: Heartbeat) -> Finish:
        self._do(heartbeat)
        return self._finish


def wait_until_stopped(heartbeat: Heartbeat) -> None:
    """Work until it is cancelled, as a read from a socket that is then shut."""
    shut = threading.Event()
    with heartbeat.cancel_token.on_cancel(shut.set):
        assert shut.wait(TIMEOUT_SECONDS), "the work was not cancelled"
