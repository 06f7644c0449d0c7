"""Refreshes: their options, their steps (one for each node or runner), and whether they left nodes cordoned.

Nothing here needs a fence of its own. The writer holds the job's row in the same transaction: its worker by the
claim, other writers because they have just changed the row.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Instance, InstanceState, Job, JobState, Refresh, RefreshKind, StepState, Version
from shared.db.models.jobs import LIVE_STATES
from shared.plain_text import plain_line

NODES_LOCK = "nodes"
"""The lock (`Job.lock_name`) of every refresh that changes nodes, so that no two nodes are drained at the same time."""


class RestartKind(StrEnum):
    """How a node is restarted after it is drained."""

    COMMAND = "command"
    """By a command on the worker (LONGSHORE_NODE_RESTART_COMMAND)."""
    WEBHOOK = "webhook"
    """By a request to LONGSHORE_NODE_RESTART_URL."""
    NONE = "none"


@dataclass(frozen=True)
class RefreshOptions:
    """The options of a refresh, as `Refresh.options` holds them."""

    what: RefreshKind = RefreshKind.NODES
    nodes: tuple[str, ...] = ()
    """Names; empty: every node with the labels of worker nodes."""
    restart: RestartKind | None = None
    """None: the way that the settings of the worker name."""
    version_id: str | None = None
    registry_id: str | None = None
    """Only the runners whose image was pulled from this registry."""
    dry_run: bool = False

    def as_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, document: dict[str, Any]) -> "RefreshOptions":
        return cls(
            **{
                **document,
                "what": RefreshKind(document["what"]),
                "nodes": tuple(document["nodes"]),
                "restart": None if document["restart"] is None else RestartKind(document["restart"]),
            }
        )


ENDED = (StepState.DONE, StepState.FAILED, StepState.SKIPPED)


@dataclass
class RefreshStep:
    """One node or runner. `write_steps` sets the times, by the database's clock."""

    name: str
    """The name of a node, or OWNER/NAME@HASH of a runner."""
    state: StepState = StepState.WAITING
    step: str = ""
    """The current action, or the result, in a sentence."""
    instance_id: str | None = None
    """None: the step is about a node."""
    plan: dict[str, list[str]] | None = None
    """The result of a dry run for a node: `evicted`, `stay`, `waits_for`, `refused_for`."""
    started_at: int | None = None
    finished_at: int | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def read_steps(progress: Sequence[dict[str, Any]]) -> list[RefreshStep]:
    return [RefreshStep(**{**step, "state": StepState(step["state"])}) for step in progress]


def write_steps(session: Session, job_id: str, steps: Sequence[RefreshStep]) -> None:
    now = session.scalars(select(now_ms())).one()
    for step in steps:
        step.step = plain_line(step.step)
        if step.state != StepState.WAITING and step.started_at is None:
            step.started_at = now
        if step.ended and step.finished_at is None:
            step.finished_at = now
    session.execute(
        update(Refresh)
        .where(Refresh.job_id == job_id)
        .values(progress=[asdict(step) for step in steps])
        .execution_options(synchronize_session=False)
    )


def change_running_steps(session: Session, job_id: str, state: StepState, message: str) -> None:
    progress = session.scalar(select(Refresh.progress).where(Refresh.job_id == job_id))
    if progress is None:
        return
    steps = read_steps(progress)
    for step in steps:
        if step.state == StepState.RUNNING:
            step.state, step.step = state, message
    write_steps(session, job_id, steps)


Runner = tuple[Instance, Algorithm, Version]


def matching_runners(session: Session, options: RefreshOptions) -> list[Runner]:
    query = (
        select(Instance, Algorithm, Version)
        .join(Algorithm, Algorithm.id == Instance.algorithm_id)
        .join(Version, Version.id == Instance.version_id)
        .where(Instance.state == InstanceState.READY)
        .order_by(Instance.seq)
    )
    if options.version_id is not None:
        query = query.where(Instance.version_id == options.version_id)
    if options.registry_id is not None:
        query = query.where(Instance.registry_id == options.registry_id)
    return [(row.Instance, row.Algorithm, row.Version) for row in session.execute(query)]


def steps_of(runners: list[Runner]) -> list[RefreshStep]:
    return [
        RefreshStep(f"{algorithm.path}@{version.git_hash}", instance_id=instance.id)
        for instance, algorithm, version in runners
    ]


def refreshes_to_uncordon(session: Session) -> list[str]:
    """Return the ids of ended jobs that may have left a node cordoned, oldest first.

    A job that a worker still holds is left out: that worker uncordons its nodes, or is lost later.
    """
    return list(
        session.scalars(
            select(Refresh.job_id)
            .join(Job, Job.id == Refresh.job_id)
            .where(
                Refresh.uncordoned_at.is_(None),
                Refresh.what == RefreshKind.NODES,
                Job.state.not_in(LIVE_STATES),
                Job.lease_owner.is_(None),
            )
            .order_by(Refresh.seq)
        )
    )


def mark_uncordoned(session: Session, job_id: str) -> None:
    session.execute(
        update(Refresh)
        .where(Refresh.job_id == job_id)
        .values(uncordoned_at=now_ms())
        .execution_options(synchronize_session=False)
    )


def nodes_done_before(session: Session, job_id: str) -> set[str]:
    """Return the nodes that the previous refresh of nodes finished, where it did not succeed as a whole."""
    own_seq = select(Refresh.seq).where(Refresh.job_id == job_id).scalar_subquery()
    last = session.execute(
        select(Refresh, Job.state)
        .join(Job, Job.id == Refresh.job_id)
        .where(Job.lock_name == NODES_LOCK, Refresh.seq < own_seq)
        .order_by(Refresh.seq.desc())
        .limit(1)
    ).first()
    if last is None or last.state == JobState.SUCCEEDED:
        return set()
    return {step.name for step in read_steps(last[0].progress) if step.state == StepState.DONE}
