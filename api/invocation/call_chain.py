"""The calls that wait for a call: an algorithm may call algorithms while it works on a call itself.

A request of an algorithm has no key. It comes from the thread that made the call above it (`nested_calls`), which puts
the chain into the WSGI environment of the request, where no client can put anything.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flask import current_app, request

from api.authentication import caller
from api.owner_slots import RETRY_SECONDS, OwnerSlots, call_slots
from shared.db.models import Algorithm
from shared.errors import InvalidInputError, LimitReachedError, UnavailableError
from shared.keys import Caller
from shared.settings import settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

CHAIN_KEY = "longshore.call_chain"
"""Its name in the WSGI environment."""


@dataclass(frozen=True)
class CallChain:
    """The calls above a call. A call that came from outside has none: `acting` is None, and `depth` is 0.

    `limited` is the owner of the key that the first call came with: limits count for it. `acting` has the rights of the
    call: those of the owner of the algorithm that makes it. `deadline` is that of the call above (monotonic clock).
    """

    limited: str
    application: "WSGIApplication"
    acting: Caller | None = None
    depth: int = 0
    deadline: float | None = None
    instances: frozenset[str] = frozenset()
    """Instances whose calls wait for this one."""
    ended: tuple[threading.Event, ...] = ()
    """One for each call above that waits for this one: set when it has ended."""

    def below(self, algorithm: Algorithm, instance_id: str, *, deadline: float, ended: threading.Event) -> "CallChain":
        """Return the chain of the calls that an algorithm makes while its instance works on a call of this chain."""
        return replace(
            self,
            acting=Caller(instance_id, algorithm.owner, admin=False, may_manage=False),
            depth=self.depth + 1,
            deadline=deadline,
            instances=self.instances | {instance_id},
            ended=(*self.ended, ended),
        )

    def detached(self) -> "CallChain":
        """Return the chain of a call for whose end the call above does not wait."""
        return replace(self, instances=frozenset(), ended=())

    def shortened(self, timeout: float) -> float:
        """Return the timeout, or the time that the call above has left if that is less.

        Raises:
            UnavailableError: the call above has no time left.
        """
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise UnavailableError("The call that made this one has no time left; this one was not begun.")
        return min(timeout, left)

    @contextmanager
    def slot(self, slots: OwnerSlots | None = None) -> Iterator[None]:
        """Hold a slot for a call, or one of other `slots`. The message to an algorithm does not tell who called it.

        Raises:
            LimitReachedError, UnavailableError: there is none left.
        """
        slots = slots or call_slots()
        if self.acting is None:
            with slots.hold(self.limited):
                yield
            return
        if not slots.acquire(self.limited):
            raise LimitReachedError(
                "As many calls as the caller may have at the same time are in progress, those of pipelines included; "
                f"this one was not begun. Retry in {RETRY_SECONDS} s.",
                retry_after=RETRY_SECONDS,
            )
        try:
            yield
        finally:
            slots.release(self.limited)

    def require_shallow(self) -> None:
        """Refuse calls below this one if it is as deep as calls may be.

        Raises:
            InvalidInputError: it is.
        """
        maximum = settings().pipeline_max_depth
        if self.depth >= maximum:
            raise InvalidInputError(
                f"Algorithms may call each other {maximum} deep (LONGSHORE_PIPELINE_MAX_DEPTH), and this call would be "
                "deeper. Do they call each other in a circle?"
            )

    def require_wanted(self) -> None:
        """Refuse to go on with a call that waits for something, if nobody waits for the call any more.

        Raises:
            UnavailableError: the call above has ended.
        """
        if any(event.is_set() for event in self.ended):
            raise UnavailableError("The call that made this one has ended, so this one was not begun.")

    def require_possible(self, algorithm: Algorithm, instance_id: str) -> None:
        """Refuse to send the call to an instance where nobody would get it.

        Raises:
            UnavailableError: the instance waits for this call, or the call above has ended.
        """
        self.require_wanted()
        if instance_id in self.instances:
            raise UnavailableError(
                f"{algorithm.path} waits for this very call, and its instance works on one call at a time: the call "
                "would never begin. Algorithms cannot call themselves, nor each other in a circle."
            )


def nested_chain() -> CallChain | None:
    """Return the chain of a request that an algorithm made; None for one that came from outside."""
    chain = request.environ.get(CHAIN_KEY)
    return chain if isinstance(chain, CallChain) else None


def request_chain() -> CallChain:
    """Return the chain of this request."""
    return nested_chain() or CallChain(limited=caller().owner, application=current_app.wsgi_app)
