"""What a refresh was ordered with, as its row keeps it.

How far a refresh is, entry by entry.

Whoever writes it holds the job's row in the same transaction: its worker by the claim, everybody else by having just
changed it. So nothing here needs a fence of its own.

Which runners a refresh is about: the servings that take calls, of one version, one registry or all.

Which ended refreshes may have left a node cordoned; and what the last one did not get done.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Instance, InstanceState, Job, JobState, Refresh, RefreshKind, StepState, Version
from shared.db.models.jobs import LIVE_STATES

NODES_LOCK = "nodes"
"""The place (`Job.lock_name`) of every refresh that changes nodes: two at once would empty two nodes at once."""


class RestartKind(StrEnum):
    """How a node is restarted once it is empty."""

    COMMAND = "command"
    """By a command on the worker (LONGSHORE_NODE_RESTART_COMMAND)."""
    WEBHOOK = "webhook"
    """By whoever answers at LONGSHORE_NODE_RESTART_URL."""
    NONE = "none"
    """Not at all: emptying it is enough."""


@dataclass(frozen=True)
class RefreshOptions:
    """Which nodes or runners are refreshed, and how."""

    what: RefreshKind = RefreshKind.NODES
    nodes: tuple[str, ...] = ()
    """Names; none: every node with the labels of worker nodes."""
    restart: RestartKind | None = None
    """None: by whichever of them the settings of the worker name."""
    version_id: str | None = None
    """Only what runs of this version."""
    registry_id: str | None = None
    """Only what was pulled from this registry."""
    dry_run: bool = False
    """Find out what would happen, and change nothing."""

    def as_document(self) -> dict[str, Any]:
        """As `Refresh.options` holds it."""
        return asdict(self)

    @classmethod
    def read(cls, document: dict[str, Any]) -> "RefreshOptions":
        """What `as_document` wrote."""
        restart = document["restart"]
        return cls(
            **{
                **document,
                "what": RefreshKind(document["what"]),
                "nodes": tuple(document["nodes"]),
                "restart": None if restart is None else RestartKind(restart),
            }
        )


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


Runner = tuple[Instance, Algorithm, Version]


def matching_runners(session: Session, options: RefreshOptions) -> list[Runner]:
    """What takes calls at the moment and is meant, oldest first."""
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
    return [row._tuple() for row in session.execute(query)]


def steps_of(runners: list[Runner]) -> list[RefreshStep]:
    """One entry for each."""
    return [
        RefreshStep(f"{algorithm.path}@{version.git_hash}", instance_id=instance.id)
        for instance, algorithm, version in runners
    ]


def unreleased(session: Session) -> list[str]:
    """The ids of ended jobs of which nobody has seen yet that they left no node cordoned, oldest first.

    Not while a worker still is at one: that lets go by itself, or is taken for lost.
    """
    left = (
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
    return list(session.scalars(left))


def mark_released(session: Session, job_id: str) -> None:
    """No node is cordoned by this job any more."""
    session.execute(
        update(Refresh)
        .where(Refresh.job_id == job_id)
        .values(uncordoned_at=now_ms())
        .execution_options(synchronize_session=False)
    )


def done_by_the_last(session: Session, job_id: str) -> set[str]:
    """The nodes that were done by the refresh before this job's, where that one did not get all of them done."""
    before = select(Refresh.seq).where(Refresh.job_id == job_id).scalar_subquery()
    last = session.execute(
        select(Refresh, Job.state)
        .join(Job, Job.id == Refresh.job_id)
        .where(Job.lock_name == NODES_LOCK, Refresh.seq < before)
        .order_by(Refresh.seq.desc())
        .limit(1)
    ).first()
    if last is None or last.state == JobState.SUCCEEDED:
        return set()
    return {entry.name for entry in read_steps(last[0].progress) if entry.state == StepState.DONE}
