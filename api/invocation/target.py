"""Find the image and the instance that serve a call now, and start an instance where there is none."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from api import dispatch
from shared.algorithms import with_version
from shared.commands.serve import ensure_instance
from shared.db.engine import database
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.errors import ConflictError, LimitReachedError, NotFoundError, RequestError, UnavailableError
from shared.instances.states import DesiredState, current_instance, running_instances, starting_instances
from shared.keys import Caller
from shared.pulls.pending_push import find_pending_push
from shared.pulls.resolution import resolve_pull
from shared.settings import settings

MIN_POLL_INTERVAL_SECONDS = 0.02
MAX_POLL_INTERVAL_SECONDS = 0.2
RETRY_SECONDS = 5

_INSTANCE = select(Instance.state, Instance.message, Instance.endpoint).where(Instance.id == bindparam("instance"))


class NoImageError(ConflictError):
    """Raised when no image of an algorithm may run. The message may have what a registry said of its pushes."""

    def __init__(self, algorithm: Algorithm, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self._algorithm = algorithm

    def told_to(self, caller: Caller) -> ConflictError:
        """Return the error for a caller: with this message if the caller may read about the algorithm's pushes."""
        path = self._algorithm.path
        if caller.may_read(self._algorithm):
            return ConflictError(self.message, retry_after=self.retry_after)
        return ConflictError(
            f"{path} has no image that may run now, so the call was not begun. Its owner can see why; call it later.",
            retry_after=self.retry_after,
        )


@dataclass(frozen=True)
class Target:
    """A version, the image that serves its callers, and its instance, if there is one."""

    algorithm: Algorithm
    version: Version
    desired: DesiredState
    instance: Instance | None


@dataclass(frozen=True)
class AwaitedPush:
    """A version whose image no registry has yet, while a push of it is under way."""

    algorithm: Algorithm
    version: Version


@dataclass(frozen=True)
class ReadyInstance:
    """An instance that takes calls at `endpoint`."""

    id: str
    endpoint: str


def find_target(session: Session, algorithm: Algorithm, version: Version) -> Target | AwaitedPush:
    """Return what serves a version, or that a push brings its image.

    Raises:
        NoImageError: there is no image that may run; with `retry_after` if a push continues later.
    """
    resolution = resolve_pull(session, algorithm, version)
    desired = DesiredState.of(algorithm, version, resolution)
    if desired is not None:
        return Target(algorithm, version, desired, current_instance(session, desired))
    push = find_pending_push(session, version)
    if push is None:
        raise NoImageError(algorithm, resolution.reason)
    if push.obstacle is not None:
        raise NoImageError(
            algorithm,
            f"No registry has {algorithm.path} at {version.git_hash[:12]} from a good push yet, and calls do not wait "
            f"for the push to {push.registry_url}: {push.obstacle}",
            retry_after=RETRY_SECONDS,
        )
    return AwaitedPush(algorithm, version)


def find_present_target(version: Version, algorithm: Algorithm) -> Target | AwaitedPush:
    """Return what serves a version now; a push or a pin may have changed that.

    Raises:
        NotFoundError: the algorithm was deleted.
        NoImageError: as `find_target`.
    """
    with database().reading() as session:
        rows = with_version(session, version.id)
        if rows is None:
            raise NotFoundError(f"{algorithm.path} was deleted.")
        return find_target(session, *rows)


def find_target_again(target: Target) -> Target:
    """Return the present target of the same version.

    Raises:
        NotFoundError: the algorithm was deleted.
        NoImageError: as `find_target`; also while its image is pushed anew.
    """
    found = find_present_target(target.version, target.algorithm)
    if isinstance(found, AwaitedPush):
        raise NoImageError(
            target.algorithm,
            f"The image of {target.algorithm.path} may not run any more, and its next push has not ended. The call was "
            "not begun; send it again.",
            retry_after=RETRY_SECONDS,
        )
    return found


def wait_until_ready(
    target: Target, deadline: float, require_wanted: Callable[[], None], *, request_id: str | None
) -> ReadyInstance | None:
    """Make sure that the target has an instance, and wait until it takes calls; None if it was stopped meanwhile.

    The row is polled, so that no session is held during the wait (rule 6). `deadline` is in seconds of the monotonic
    clock. `require_wanted` raises its own error when nobody waits for the call any more.

    Raises:
        UnavailableError: the instance could not be started, or not before the deadline.
    """
    instance = target.instance or _start(target, deadline, require_wanted, request_id)
    state, message, endpoint = instance.state, instance.message, instance.endpoint
    interval = MIN_POLL_INTERVAL_SECONDS
    while state == InstanceState.PENDING:
        if time.monotonic() + interval >= deadline:
            raise not_delivered_in_time(target, message)
        time.sleep(interval)
        require_wanted()
        interval = min(MAX_POLL_INTERVAL_SECONDS, 1.5 * interval)
        rows = database().ask(_INSTANCE, instance=instance.id)
        if not rows:
            return None
        state, message, endpoint = rows[0]
    if state == InstanceState.FAILED:
        raise UnavailableError(f"{target.algorithm.path} could not be started: {message}", retry_after=RETRY_SECONDS)
    return ReadyInstance(instance.id, endpoint) if state == InstanceState.READY and endpoint is not None else None


def require_capacity(target: Target, waiting: frozenset[str]) -> None:
    """Refuse a call that waits for an instance which cannot start before calls that wait for this one have ended.

    `waiting` has the ids of their instances.

    Raises:
        UnavailableError: they are all that may run.
    """
    if not waiting or (target.instance is not None and target.instance.state == InstanceState.READY):
        return
    with database().reading() as session:
        started = [each for each in running_instances(session) if each.state != InstanceState.PENDING]
    chosen, owner = settings(), target.desired.owner
    limits = [(chosen.serving_max_instances_per_owner, {each.id for each in started if each.owner == owner})]
    if chosen.serving == "docker":
        limits.append((chosen.serving_max_instances, {each.id for each in started}))
    if any(len(running) >= maximum and running <= waiting for maximum, running in limits):
        raise UnavailableError(
            f"{target.algorithm.path} cannot start: as many algorithms run as may at the same time, and all of them "
            "wait for this call (LONGSHORE_SERVING_MAX_INSTANCES, LONGSHORE_SERVING_MAX_INSTANCES_PER_OWNER)."
        )


def _start(target: Target, deadline: float, require_wanted: Callable[[], None], request_id: str | None) -> Instance:
    """Return the instance of the target, a new one if there is none, after waiting for other starts of its owner.

    Raises:
        UnavailableError: these did not end before the deadline.
    """
    maximum = settings().serving_starts_per_owner
    while True:
        try:
            with database().writing() as session:
                instance, messages = ensure_instance(session, target.desired, request_id=request_id, max_starts=maximum)
        except LimitReachedError as error:
            reason = error.message
        else:
            dispatch.send(messages)
            return instance
        is_full = True
        while is_full:
            if time.monotonic() + MAX_POLL_INTERVAL_SECONDS >= deadline:
                raise not_delivered_in_time(target, reason)
            time.sleep(MAX_POLL_INTERVAL_SECONDS)
            require_wanted()
            with database().reading() as session:
                is_full = starting_instances(session, target.desired.owner) >= maximum


def not_delivered_in_time(target: Target, reason: str) -> RequestError:
    return UnavailableError(
        f"{target.algorithm.path} did not take the call within its timeout; the call was not begun, send it again. "
        f"{reason}",
        retry_after=RETRY_SECONDS,
    )
