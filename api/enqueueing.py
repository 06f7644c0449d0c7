"""Calls that enqueue: one transaction, then the nudges, then `Prefer: wait`, then the headers that name the job."""

import re
import time
from collections.abc import Callable

from flask import Response, g, request
from sqlalchemy import exists, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import nudges
from api.idempotency import job_of_repeat, remember_job
from api.waiting import wait_limit
from shared.database import database
from shared.models import Job
from shared.models.jobs import LIVE_STATES
from shared.orders.ordered import Enqueued
from shared.refusals import Refusal
from shared.settings import settings

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)
MIN_POLL_INTERVAL_SECONDS = 0.05
MAX_POLL_INTERVAL_SECONDS = 0.5


def enqueue(order: Callable[[Session], Enqueued]) -> str:
    """Carry out an order in a transaction of its own, or find the job of the request that this one repeats.

    Returns the id of the call's job, after waiting for it if the caller prefers so.

    Raises:
        Refusal: what the order refuses; 409 for a reused idempotency key.
    """
    try:
        job_id = _enqueue_once(order)
    except IntegrityError:
        # Two requests met in a unique constraint: the other one is committed by now, so this one sees it.
        job_id = _enqueue_once(order)
    except Refusal:
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
    nudges.send(ordered.nudges)
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
