"""Tables of jobs, refreshes, live worker processes, and the last runs of periodic tasks.

The row is the job; a Celery message only names it (rule 1).
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, String, Text, literal, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base, CreatedAt, Document, IdentifiedBase, Millis, PlainText
from shared.errors import ErrorClass


class JobKind(StrEnum):
    """The kinds of jobs."""

    COMPILE = "compile"
    """Builds an image, or joins a running build of the same commit."""
    PUBLISH = "publish"
    """Publishes a version once its build has succeeded. No worker runs it: it ends together with its build."""
    PUSH = "push"
    SERVE = "serve"
    REFRESH = "refresh"
    """Makes nodes or running instances pull their images again. Belongs to no algorithm."""


class JobState(StrEnum):
    """The states of a job."""

    QUEUED = "queued"
    """Waits for a worker, for another job, or for its next attempt."""
    RUNNING = "running"
    """Claimed: a worker holds a lease."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Not retried any more; the error has the reason."""
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    """Replaced by a newer push of the same version to the same registry."""

    @property
    def ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


LIVE_STATES = (JobState.QUEUED, JobState.RUNNING)

# Rendered into the statement, not bound: a database uses a partial index only if it can see the condition.
IS_PUSH = literal(JobKind.PUSH.value, String, literal_execute=True)
IS_QUEUED = literal(JobState.QUEUED.value, String, literal_execute=True)
LIVE = "state IN ('queued', 'running')"
IS_LIVE = text(f"jobs.{LIVE}")


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class Job(IdentifiedBase):
    """One piece of work that a caller asked for."""

    __tablename__ = "jobs"
    __table_args__ = (
        # The lock: at most one worker per image reference, whatever rows name it.
        _partial("uq_jobs_lock_leased", "lock_name", where="lease_owner IS NOT NULL", unique=True),
        # At most one live refresh of nodes; other refreshes have locks of their own.
        _partial(
            "uq_jobs_refresh_live",
            "lock_name",
            where="kind = 'refresh' AND state IN ('queued', 'running')",
            unique=True,
        ),
        # For the queries of workers and sweep: only live jobs, however long the history is.
        _partial("ix_jobs_leased_registry", "registry_id", "lease_expires_at", where="lease_owner IS NOT NULL"),
        _partial("ix_jobs_queued_pushes", "owner", "kind", "state", "seq", where="state = 'queued' AND kind = 'push'"),
        _partial("ix_jobs_live_owner", "owner", where=LIVE),
        _partial("ix_jobs_queued_lock", "lock_name", where="state = 'queued'"),
        _partial("ix_jobs_queued_awaits", "awaits_id", where="state = 'queued' AND awaits_id IS NOT NULL"),
        # For lists, newest first, by each filter.
        Index("ix_jobs_state_seq", "state", "seq"),
        Index("ix_jobs_kind_seq", "kind", "seq"),
        Index("ix_jobs_kind_state_seq", "kind", "state", "seq"),
        Index("ix_jobs_owner_seq", "owner", "seq"),
        Index("ix_jobs_algorithm_seq", "algorithm_id", "seq"),
        Index("ix_jobs_registry_seq", "registry_id", "seq"),
        Index("ix_jobs_registry_state_seq", "registry_id", "state", "seq"),
    )

    kind: Mapped[JobKind] = mapped_column(String(16))
    state: Mapped[JobState] = mapped_column(String(16), default=JobState.QUEUED)
    owner: Mapped[str] = mapped_column(String(64))
    algorithm_id: Mapped[str] = mapped_column(String(36))
    """Empty for a job that belongs to no algorithm, as are `version_id` and `git_hash`."""
    version_id: Mapped[str] = mapped_column(String(36), index=True)
    git_hash: Mapped[str] = mapped_column(String(64))
    build_id: Mapped[str | None] = mapped_column(String(36), index=True)
    registry_id: Mapped[str | None] = mapped_column(String(36))
    push_id: Mapped[str | None] = mapped_column(String(36))
    instance_id: Mapped[str | None] = mapped_column(String(36))
    parent_id: Mapped[str | None] = mapped_column(String(36), index=True)
    """The job of the request that created this one."""
    awaits_id: Mapped[str | None] = mapped_column(String(36))
    """The job that must succeed before this one is due."""
    superseded_by: Mapped[str | None] = mapped_column(String(36))

    generation: Mapped[int] = mapped_column(default=0)
    """The generation of the push row that this job may write."""
    claim: Mapped[int] = mapped_column(default=0)
    """The fence: raised by each claim."""
    tries: Mapped[int] = mapped_column(default=0)
    """Failed attempts, which count against the retry budget."""
    losses: Mapped[int] = mapped_column(default=0)
    lock_name: Mapped[str] = mapped_column(String(600))
    """The name of the lock that the job needs: a normalised image reference, or a version."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    """The worker that runs it. Set on an ended job until that worker has released it."""
    lease_expires_at: Mapped[Millis | None]
    next_attempt_at: Mapped[Millis | None]
    dispatched_at: Mapped[Millis | None]
    dispatch_count: Mapped[int] = mapped_column(default=0)

    request_seq: Mapped[int | None] = mapped_column(BigInteger)
    """The `seq` of the job that a caller requested, where this one only repeats it; None: its own."""
    semantic_version: Mapped[str | None] = mapped_column(String(64))
    """The second tag of a push."""
    credentials: Mapped[str | None] = mapped_column(Text)
    """Encrypted credentials for this push only; deleted when the job ends."""
    registry_fingerprint: Mapped[str | None] = mapped_column(String(64))
    """The fingerprint of the registry that those credentials are bound to."""
    error_class: Mapped[ErrorClass | None] = mapped_column(String(16))
    error_message: Mapped[str | None] = mapped_column(PlainText)
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[CreatedAt]
    started_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]


class WorkerProcess(Base):
    """A worker's parent process. The row is refreshed while it runs and deleted when it stops."""

    __tablename__ = "worker_processes"

    name: Mapped[str] = mapped_column(String(128), unique=True)
    queues: Mapped[str] = mapped_column(String(128))
    """Comma-separated, with a comma at both ends."""
    problem: Mapped[str | None] = mapped_column(PlainText)
    """The reason why it cannot work (no engine, for example), as a sentence."""
    started_at: Mapped[CreatedAt]
    seen_at: Mapped[Millis]


class PeriodicRun(Base):
    """The last run of a periodic task."""

    __tablename__ = "periodic_runs"

    name: Mapped[str] = mapped_column(String(32), unique=True)
    at: Mapped[Millis]


class RefreshKind(StrEnum):
    """What a refresh is applied to."""

    NODES = "nodes"
    """Nodes of a cluster: drained, restarted and uncordoned, one after the other."""
    RUNNERS = "runners"
    """Running instances: restarted, so that the registry is asked again."""


class StepState(StrEnum):
    """The states of one step (a node or an instance) of a refresh."""

    WAITING = "waiting"
    """Not started yet, or to be repeated."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It could not be done, or the job was ended; the step has the reason."""
    SKIPPED = "skipped"
    """There was nothing to do: the node or instance was gone, or it was a dry run."""


class Refresh(Base):
    """The scope and progress of a refresh. Its state is that of its job."""

    __tablename__ = "refreshes"

    job_id: Mapped[str] = mapped_column(String(36), unique=True)
    what: Mapped[RefreshKind] = mapped_column(String(16))
    options: Mapped[Document]
    """The request, as `shared.refreshes.RefreshOptions`."""
    progress: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """One `shared.refreshes.RefreshStep` per node or instance, in order. Empty until a worker has listed them."""
    uncordoned_at: Mapped[Millis | None]
    """When it was confirmed, after the job had ended, that it left no node cordoned."""
    created_at: Mapped[CreatedAt]
