"""Writes of a worker to the row of its build, fenced by the job's claim (rule 2)."""

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Build, BuildStatus, Job
from shared.fence import HELD, Claim, FenceLostError, held_by
from shared.webhooks.events import EventType, emit_build


def append_log(session: Session, claim: Claim, text: str) -> None:
    """Append to the build's log.

    Raises:
        FenceLostError: the job no longer belongs to this claim.
    """
    written = session.execute(
        update(Build)
        .where(Build.id == claim.build_id, exists(select(Job.id).where(HELD)))
        .values(log=Build.log + text)
        .returning(Build.id)
        .execution_options(synchronize_session=False),
        held_by(claim),
    )
    if written.first() is None:
        raise FenceLostError


def write_built(
    session: Session,
    claim: Claim,
    *,
    image_id: str,
    manifest_digest: str | None,
    image_bytes: int,
    environment_key: str | None,
) -> None:
    """Write that the build has succeeded. The job's end, in the same transaction, is the fence."""
    session.execute(
        update(Build)
        .where(Build.id == claim.build_id)
        .values(
            status=BuildStatus.SUCCEEDED,
            message=None,
            image_id=image_id,
            manifest_digest=manifest_digest,
            image_bytes=image_bytes,
            environment_key=environment_key,
            finished_at=now_ms(),
        )
    )
    emit_build(session, claim.build_id or "", EventType.BUILD_SUCCEEDED)
