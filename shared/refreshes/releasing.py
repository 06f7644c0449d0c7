"""Which ended refreshes may have left a node cordoned; and what the last one did not get done."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.models import Job, JobState, Refresh, RefreshKind, StepState
from shared.models.jobs import LIVE_STATES
from shared.refreshes.options import PLACE_OF_NODES
from shared.refreshes.progress import read_steps


def unreleased(session: Session) -> list[str]:
    """The ids of ended jobs of which nobody has seen yet that they left no node cordoned, oldest first.

    Not while a worker still is at one: that lets go by itself, or is taken for lost.
    """
    left = (
        select(Refresh.job_id)
        .join(Job, Job.id == Refresh.job_id)
        .where(
            Refresh.released_at.is_(None),
            Refresh.what == RefreshKind.NODES,
            Job.state.not_in(LIVE_STATES),
            Job.lease_owner.is_(None),
        )
        .order_by(Refresh.seq)
    )
    return list(session.scalars(left))


def mark_released(session: Session, job_id: str) -> None:
    """No node is cordoned by this job any more."""
    session.execute(
        update(Refresh)
        .where(Refresh.job_id == job_id)
        .values(released_at=now_ms())
        .execution_options(synchronize_session=False)
    )


def done_by_the_last(session: Session, job_id: str) -> set[str]:
    """The nodes that were done by the refresh before this job's, where that one did not get all of them done."""
    before = select(Refresh.seq).where(Refresh.job_id == job_id).scalar_subquery()
    last = session.execute(
        select(Refresh, Job.state)
        .join(Job, Job.id == Refresh.job_id)
        .where(Job.lock_name == PLACE_OF_NODES, Refresh.seq < before)
        .order_by(Refresh.seq.desc())
        .limit(1)
    ).first()
    if last is None or last.state == JobState.SUCCEEDED:
        return set()
    return {entry.name for entry in read_steps(last[0].progress) if entry.state == StepState.DONE}
