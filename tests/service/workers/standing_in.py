"""Work that stands in for a build or a push: it does what a test says, under a real claim."""

import threading
from collections.abc import Callable

from sqlalchemy.orm import Session

from shared.fence import Claim
from tests.together import SECONDS
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat


def nothing(_session: Session) -> None:
    """Nothing is written."""


class StandIn:
    """A kind of work. Called with a claim it is that work, as `BuildWork` and `PushWork` are."""

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

    def __call__(self, claim: Claim) -> "StandIn":
        self.claims.append(claim)
        return self

    def write(self, session: Session) -> None:
        """What moved since."""
        self._write(session)

    def do(self, heartbeat: Heartbeat) -> Finish:
        """The work."""
        self._do(heartbeat)
        return self._finish


def until_stopped(heartbeat: Heartbeat) -> None:
    """Work that ends when it is stopped, as a read from a socket does that is shut."""
    shut = threading.Event()
    with heartbeat.cancel_token.on_cancel(shut.set):
        assert shut.wait(SECONDS), "nobody stopped the work"
