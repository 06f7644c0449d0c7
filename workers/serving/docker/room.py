"""How many images run on one machine: the one that rested longest makes room for the next."""

from shared.database import database
from shared.errors import ErrorClass, WorkError
from shared.models import Serving, ServingState
from shared.servings.states import begin_draining, running_servings
from shared.settings import settings
from workers.serving.health import ask_health


def make_room() -> None:
    """Make sure that one more may be started.

    Raises:
        WorkError: as many run as may; the one that is idle longest, if any is, was told to end (unavailable: the job
            looks again).
    """
    most = settings().serving_most
    with database().reading() as session:
        there = [serving for serving in running_servings(session) if serving.state != ServingState.WANTED]
    if len(there) < most:
        return
    idle = {serving.id: _idle_seconds(serving) for serving in there if serving.state == ServingState.READY}
    longest = max(idle, key=lambda serving_id: idle[serving_id], default=None)
    if longest is not None and idle[longest] > 0:
        with database().writing() as session:
            begin_draining(session, longest, "Makes room for another algorithm.")
    raise WorkError(
        ErrorClass.UNAVAILABLE,
        f"{len(there)} algorithms run on this machine, as many as may (LONGSHORE_SERVING_MOST); it waits for room",
    )


def _idle_seconds(serving: Serving) -> float:
    health = ask_health(serving.endpoint or "")
    return 0.0 if health is None or health.idle_seconds is None else health.idle_seconds
