"""Requests that enqueue a job: one transaction, then the messages, then `Prefer: wait`, then headers that name the job.

`Idempotency-Key`: a request with the same key and caller within 24 hours returns the same job.
"""

import hashlib
import re
import time
from collections.abc import Callable

from flask import Response, g, request
from sqlalchemy import bindparam, delete, exists, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import caller
from api.owner_slots import wait_slots
from shared.commands.push import Enqueued
from shared.commands.queue_limit import require_room_in_queue
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import IdempotencyKey, Job
from shared.db.models.jobs import LIVE_STATES
from shared.encryption import keyring
from shared.errors import ConflictError, InvalidInputError, RequestError
from shared.settings import settings

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)
MIN_POLL_INTERVAL_SECONDS = 0.05
MAX_POLL_INTERVAL_SECONDS = 0.5
IDEMPOTENCY_KEY_LIFETIME_MS = 24 * 60 * 60 * 1000
MAX_IDEMPOTENCY_KEY_LENGTH = 255
DIGEST_PURPOSE = "idempotency"

_LIVE = select(
    exists(
        select(Job.id).where(
            or_(Job.id == bindparam("job"), Job.parent_id == bindparam("job")), Job.state.in_(LIVE_STATES)
        )
    )
)


def enqueue(command: Callable[[Session], Enqueued]) -> str:
    """Run a command in its own transaction, unless this request repeats an earlier one.

    Returns the id of the job, after waiting for it if the caller prefers that.

    Raises:
        RequestError: as the command.
        ConflictError: the idempotency key was used for another request.
    """
    try:
        job_id = _enqueue_once(command)
    except IntegrityError:
        # Two requests met in a unique constraint. The other one is committed by now, so this one sees it.
        job_id = _enqueue_once(command)
    except RequestError:
        # The request that this one repeats may be the cause: a commit is published only once.
        repeated = repeated_job_id()
        if repeated is None:
            raise
        job_id = repeated
    wait_for(job_id)
    return job_id


def _enqueue_once(command: Callable[[Session], Enqueued]) -> str:
    with database().writing() as session:
        repeated = find_repeated_job(session)
        if repeated is not None:
            return repeated.id
        if not caller().admin:
            require_room_in_queue(session, caller().owner)
        enqueued = command(session)
        record_idempotency_key(session, enqueued.job)
    dispatch.send(enqueued.messages)
    return enqueued.job.id


def repeated_job_id() -> str | None:
    """Return the id of the job that this request repeats; called before work that only a new request needs."""
    with database().reading() as session:
        job = find_repeated_job(session)
        return job.id if job else None


def find_repeated_job(session: Session) -> Job | None:
    """Return the job of an earlier request with this idempotency key.

    Raises:
        InvalidInputError: the key is empty or too long.
        ConflictError: the key was used for another request.
    """
    digest = _key_digest()
    if digest is None:
        return None
    used = session.scalar(
        select(IdempotencyKey).where(
            IdempotencyKey.caller == caller().key_id,
            IdempotencyKey.key == digest,
            IdempotencyKey.created_at > now_ms() - IDEMPOTENCY_KEY_LIFETIME_MS,
        )
    )
    if used is None:
        return None
    if not keyring().verify_digest(used.request, _request_bytes(), purpose=DIGEST_PURPOSE):
        raise ConflictError("This Idempotency-Key was used for another request within 24 hours; use a new one.")
    return session.scalars(select(Job).where(Job.id == used.job_id)).one()


def record_idempotency_key(session: Session, job: Job) -> None:
    """Record the job of this request for repeats. Of two simultaneous ones, a unique constraint rejects the second."""
    digest = _key_digest()
    if digest is None:
        return
    same = (IdempotencyKey.caller == caller().key_id, IdempotencyKey.key == digest)
    expired = IdempotencyKey.created_at <= now_ms() - IDEMPOTENCY_KEY_LIFETIME_MS
    session.execute(delete(IdempotencyKey).where(*same, expired))
    session.add(
        IdempotencyKey(
            caller=caller().key_id,
            key=digest,
            request=keyring().digest(_request_bytes(), purpose=DIGEST_PURPOSE),
            job_id=job.id,
        )
    )
    session.flush()


def _key_digest() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not key or len(key) > MAX_IDEMPOTENCY_KEY_LENGTH:
        raise InvalidInputError(f"An Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} characters.")
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _request_bytes() -> bytes:
    return b"\n".join((request.method.encode(), request.full_path.encode(), request.get_data(cache=True)))


def wait_for(job_id: str) -> None:
    """Wait until the job and its children have ended, at most as long as `Prefer: wait=N` says (RFC 7240)."""
    preference = WAIT.search(request.headers.get("Prefer", ""))
    owner = caller().owner
    if preference is None or not wait_slots().acquire(owner):
        return
    g.waited_seconds = min(int(preference[1]), settings().max_wait_seconds)
    deadline = time.monotonic() + g.waited_seconds
    interval = MIN_POLL_INTERVAL_SECONDS
    try:
        while _is_live(job_id) and time.monotonic() < deadline:
            time.sleep(min(interval, max(0.0, deadline - time.monotonic())))
            interval = min(interval * 1.5, MAX_POLL_INTERVAL_SECONDS)
    finally:
        wait_slots().release(owner)


def _is_live(job_id: str) -> bool:
    with database().reading() as session:
        return bool(session.scalar(_LIVE, {"job": job_id}))


def add_job_headers(response: Response, job_id: str) -> Response:
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    response.headers["X-Job-Id"] = job_id
    if g.get("waited_seconds") is not None:
        response.headers["Preference-Applied"] = f"wait={g.waited_seconds}"
    return response
