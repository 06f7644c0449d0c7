"""`Idempotency-Key`: the same key and caller within 24 hours gives the same job back."""

import hashlib

from flask import request
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.authentication import caller
from shared.clock import now_ms
from shared.models import IdempotencyKey, Job
from shared.refusals import bad_request, conflict
from shared.sealing import keyring

KEPT_MS = 24 * 60 * 60 * 1000
MAX_KEY_LENGTH = 255
PURPOSE = "idempotency"


def job_of_repeat(session: Session) -> Job | None:
    """The job that an earlier request with this key made, if the request is a repeat.

    Raises:
        Refusal: 400 for a key that cannot be one, 409 for the same key with another request.
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
        raise conflict("This Idempotency-Key was used for another request within 24 hours; take a new one.")
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
        raise bad_request(f"An Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters.")
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _request_bytes() -> bytes:
    return b"\n".join((request.method.encode(), request.full_path.encode(), request.get_data(cache=True)))
