"""What a call is served by at this moment: the resolution's image, and what runs of it, or is made to."""

import time
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from api import dispatch
from shared.algorithms import with_version
from shared.commands.serve import ensure_instance
from shared.db.engine import database
from shared.db.models import Algorithm, ImagePush, Instance, InstanceState, PushState, Version
from shared.errors import ConflictError, NotFoundError, RequestError, UnavailableError
from shared.instances.desired import DesiredState, current_instance
from shared.pulls.resolution import Resolution, resolve_pull

MIN_PAUSE_SECONDS = 0.02
MAX_PAUSE_SECONDS = 0.2
RETRY_SECONDS = 5
ON_ITS_WAY = (PushState.QUEUED, PushState.IN_PROGRESS, PushState.STALLED)


@dataclass(frozen=True)
class Target:
    """A version, the image that its callers are to be served by, and what runs of it."""

    algorithm: Algorithm
    version: Version
    wanted: DesiredState
    instance: Instance | None


@dataclass(frozen=True)
class Ready:
    """A serving that takes calls."""

    instance_id: str
    endpoint: str


def find_target(session: Session, algorithm: Algorithm, version: Version) -> Target:
    """What a version is served by.

    Raises:
        ConflictError: there is no image that may run; with `retry_after` while a push is in progress.
    """
    resolution = resolve_pull(session, algorithm, version)
    wanted = DesiredState.of(algorithm, version, resolution)
    if wanted is None:
        raise _no_image(session, version, resolution)
    return Target(algorithm, version, wanted, current_instance(session, wanted))


def find_other_target(found: Target) -> Target:
    """The same by what the database says now: meanwhile another image may have become the right one.

    Raises:
        RequestError: as `find_target`; 404, the algorithm was deleted.
    """
    with database().reading() as session:
        both = with_version(session, found.version.id)
        if both is None:
            raise NotFoundError(f"{found.algorithm.path} was deleted.")
        return find_target(session, *both)


def wait_until_ready(found: Target, deadline: float, *, request_id: str | None) -> Ready | None:
    """Have it run, and wait for it; None where what was waited for is not to take calls any more.

    No session is held meanwhile (rule 6): the row is read again and again, in ever longer pauses.

    Raises:
        UnavailableError: it could not be started, or not before the deadline (monotonic clock, in seconds).
    """
    instance = found.instance or _want(found, request_id)
    state, message, endpoint = instance.state, instance.message, instance.endpoint
    pause = MIN_PAUSE_SECONDS
    while state == InstanceState.PENDING:
        if time.monotonic() + pause >= deadline:
            raise not_in_time(found, message)
        time.sleep(pause)
        pause = min(MAX_PAUSE_SECONDS, 1.5 * pause)
        rows = database().ask(_STATE, instance=instance.id)
        if not rows:
            return None
        state, message, endpoint = rows[0]
    if state == InstanceState.FAILED:
        raise UnavailableError(f"{found.algorithm.path} could not be started: {message}", retry_after=RETRY_SECONDS)
    return Ready(instance.id, endpoint) if state == InstanceState.READY and endpoint is not None else None


def not_in_time(found: Target, message: str) -> RequestError:
    """503: the call was not begun within its timeout."""
    return UnavailableError(
        f"{found.algorithm.path} did not take the call within its timeout; the call was not begun, send it again. "
        f"{message}",
        retry_after=RETRY_SECONDS,
    )


_STATE = select(Instance.state, Instance.message, Instance.endpoint).where(Instance.id == bindparam("instance"))
_ON_ITS_WAY = (
    select(ImagePush.id).where(ImagePush.version_id == bindparam("version"), ImagePush.state.in_(ON_ITS_WAY)).limit(1)
)


def _want(found: Target, request_id: str | None) -> Instance:
    with database().writing() as session:
        instance, told = ensure_instance(session, found.wanted, request_id=request_id)
    dispatch.send(told)
    return instance


def _no_image(session: Session, version: Version, resolution: Resolution) -> RequestError:
    comes = session.scalar(_ON_ITS_WAY, {"version": version.id}) is not None
    return ConflictError(resolution.reason, retry_after=RETRY_SECONDS if comes else None)
