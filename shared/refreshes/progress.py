"""How far a refresh is, entry by entry.

Whoever writes it holds the job's row in the same transaction: its worker by the claim, everybody else by having just
changed it. So nothing here needs a fence of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.models import Refresh, StepState

ENDED = (StepState.DONE, StepState.FAILED, StepState.SKIPPED)


@dataclass
class RefreshStep:
    """One node or runner. The times are set as they are written, by the database's clock."""

    name: str
    """A node's name; OWNER/NAME@HASH of a runner."""
    state: StepState = StepState.WAITING
    step: str = ""
    """What is done at the moment, or what came of it, in a sentence."""
    instance_id: str | None = None
    """The runner."""
    plan: dict[str, list[str]] | None = None
    """What a dry run found out of a node: `evicted`, `stay`, `waits_for`, `refused_for`."""
    started_at: int | None = None
    finished_at: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more is done to it."""
        return self.state in ENDED


def read_steps(progress: Sequence[dict[str, Any]]) -> list[RefreshStep]:
    """What a row's `progress` says."""
    return [RefreshStep(**{**entry, "state": StepState(entry["state"])}) for entry in progress]


def write_steps(session: Session, job_id: str, entries: Sequence[RefreshStep]) -> None:
    """Write how far it is."""
    now = session.scalars(select(now_ms())).one()
    for entry in entries:
        if entry.state != StepState.WAITING and entry.started_at is None:
            entry.started_at = now
        if entry.ended and entry.finished_at is None:
            entry.finished_at = now
    session.execute(
        update(Refresh)
        .where(Refresh.job_id == job_id)
        .values(progress=[asdict(entry) for entry in entries])
        .execution_options(synchronize_session=False)
    )


def record_requeued(session: Session, job_id: str, message: str) -> None:
    """What was being done waits for the worker that goes on."""

    def wait(entry: RefreshStep) -> None:
        entry.state, entry.step = StepState.WAITING, message

    _change_running(session, job_id, wait)


def record_ended(session: Session, job_id: str, message: str) -> None:
    """What was being done when the job ended otherwise than well was not done."""
    now = session.scalars(select(now_ms())).one()

    def fail(entry: RefreshStep) -> None:
        entry.state, entry.step, entry.finished_at = StepState.FAILED, message, now

    _change_running(session, job_id, fail)


def _change_running(session: Session, job_id: str, change: Callable[[RefreshStep], None]) -> None:
    refresh = session.scalar(select(Refresh).where(Refresh.job_id == job_id))
    if refresh is None:
        return
    entries = read_steps(refresh.progress)
    for entry in entries:
        if entry.state == StepState.RUNNING:
            change(entry)
    refresh.progress = [asdict(entry) for entry in entries]
