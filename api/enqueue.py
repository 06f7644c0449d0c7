"""Calls that enqueue: one transaction, then the messages, then `Prefer: wait`, then the headers that name the job.

`Idempotency-Key`: the same key and caller within 24 hours gives the same job back.

How many requests of this process may wait for a job: half of its threads always stay free for those who do not.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable
from functools import cache

from flask import Response, g, request
from sqlalchemy import delete, exists, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import caller
from shared.commands.push import Enqueued
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


def enqueue(order: Callable[[Session], Enqueued]) -> str:
    """Carry out an order in a transaction of its own, or find the job of the request that this one repeats.

    Returns the id of the call's job, after waiting for it if the caller prefers so.

    Raises:
        RequestError: what the order refuses; 409 for a reused idempotency key.
    """
    try:
        job_id = _enqueue_once(order)
    except IntegrityError:
        # Two requests met in a unique constraint: the other one is committed by now, so this one sees it.
        job_id = _enqueue_once(order)
    except RequestError:
        # What refuses it may be what the request that it repeats did meanwhile: a commit is published but once.
        known = repeated_job()
        if known is None:
            raise
        job_id = known
    wait_for(job_id)
    return job_id


def repeated_job() -> str | None:
    """The id of the job that this request repeats, asked before work that only a new request needs."""
    with database().reading() as session:
        job = job_of_repeat(session)
        return job.id if job else None


def name_job(response: Response, job_id: str) -> Response:
    """Say in the headers which job the call made."""
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    response.headers["X-Job-Id"] = job_id
    if g.get("waited_seconds") is not None:
        response.headers["Preference-Applied"] = f"wait={g.waited_seconds}"
    return response


def _enqueue_once(order: Callable[[Session], Enqueued]) -> str:
    with database().writing() as session:
        known = job_of_repeat(session)
        if known is not None:
            return known.id
        ordered = order(session)
        remember_job(session, ordered.job)
    dispatch.send(ordered.messages)
    return ordered.job.id


def wait_for(job_id: str) -> None:
    """Wait until the job and its parts have ended, as long as `Prefer: wait=N` says (RFC 7240)."""
    asked = WAIT.search(request.headers.get("Prefer", ""))
    if asked is None or not wait_limit().acquire(blocking=False):
        return
    g.waited_seconds = min(int(asked.group(1)), settings().max_wait_seconds)
    deadline = time.monotonic() + g.waited_seconds
    pause = MIN_POLL_INTERVAL_SECONDS
    try:
        while _is_live(job_id) and time.monotonic() < deadline:
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, MAX_POLL_INTERVAL_SECONDS)
    finally:
        wait_limit().release()


def _is_live(job_id: str) -> bool:
    part = exists(select(Job.id).where(or_(Job.id == job_id, Job.parent_id == job_id), Job.state.in_(LIVE_STATES)))
    with database().reading() as session:
        return bool(session.scalar(select(part)))


KEPT_MS = 24 * 60 * 60 * 1000
MAX_KEY_LENGTH = 255
PURPOSE = "idempotency"


def job_of_repeat(session: Session) -> Job | None:
    """The job that an earlier request with this key made, if the request is a repeat.

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
            IdempotencyKey.created_at > now_ms() - KEPT_MS,
        )
    )
    if used is None:
        return None
    if not keyring().verify_digest(used.request, _request_bytes(), purpose=PURPOSE):
        raise ConflictError("This Idempotency-Key was used for another request within 24 hours; take a new one.")
    return session.scalars(select(Job).where(Job.id == used.job_id)).one()


def remember_job(session: Session, job: Job) -> None:
    """Keep what this request made, for repeats of it; two repeats at once meet in the unique constraint."""
    digest = _key_digest()
    if digest is None:
        return
    same = (IdempotencyKey.caller == caller().key_id, IdempotencyKey.key == digest)
    session.execute(delete(IdempotencyKey).where(*same, IdempotencyKey.created_at <= now_ms() - KEPT_MS))
    request_digest = keyring().digest(_request_bytes(), purpose=PURPOSE)
    session.add(IdempotencyKey(caller=caller().key_id, key=digest, request=request_digest, job_id=job.id))
    session.flush()


def _key_digest() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not key or len(key) > MAX_KEY_LENGTH:
        raise InvalidInputError(f"An Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters.")
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _request_bytes() -> bytes:
    return b"\n".join((request.method.encode(), request.full_path.encode(), request.get_data(cache=True)))


@cache
def wait_limit() -> threading.BoundedSemaphore:
    """A room for each request that may wait; whoever takes one gives it back."""
    return threading.BoundedSemaphore(max(1, settings().api_threads // 2))
