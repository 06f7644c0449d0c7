"""Jobs: the row is the job, a Celery message is only a message.

Worker nodes: who is alive, on which queues, and whether its engine answers.

Marks: when something that must keep happening happened last.
"""

from enum import StrEnum

from sqlalchemy import BigInteger, Index, String, Text, literal, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base, CreatedAt, Id, Millis, Sequence
from shared.errors import ErrorClass


class JobKind(StrEnum):
    """What a job does."""

    COMPILE = "compile"
    """Builds an image (or joins a build that runs)."""
    PUBLISH = "publish"
    """Gives a version its number once its build has succeeded. No worker runs it: it is settled with its build."""
    PUSH = "push"
    """Brings an image into a registry."""
    SERVE = "serve"
    """Starts a version's image for its callers."""
    REFRESH = "refresh"
    """Has worker nodes, or what runs, pull afresh. It is about no algorithm."""


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    """Waits for a worker, for another job, or for its next try."""
    RUNNING = "running"
    """Claimed: a worker holds a lease on it."""
    SUCCEEDED = "succeeded"
    """Done, and seen to be done."""
    FAILED = "failed"
    """Given up; the error says why."""
    CANCELLED = "cancelled"
    """Somebody ended it."""
    SUPERSEDED = "superseded"
    """A newer push of the same version to the same registry took its place."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


LIVE_STATES = (JobState.QUEUED, JobState.RUNNING)

# In the statement's text and no parameter of it: a database takes a partial index only where it can see the condition.
IS_PUSH = literal(JobKind.PUSH.value, String, literal_execute=True)
IS_QUEUED = literal(JobState.QUEUED.value, String, literal_execute=True)


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class Job(Base):
    """One piece of work that a caller asked for."""

    __tablename__ = "jobs"
    __table_args__ = (
        # The lock: at most one worker at a time in one image reference, whatever rows name it.
        _partial("uq_jobs_lock_leased", "lock_name", where="lease_owner IS NOT NULL", unique=True),
        # At most one refresh of all nodes at a time; the places of the others are their own.
        _partial(
            "uq_jobs_refresh_live",
            "lock_name",
            where="kind = 'refresh' AND state IN ('queued', 'running')",
            unique=True,
        ),
        # What workers and the sweep ask for is among the few jobs that wait or run, however long the history is.
        _partial("ix_jobs_leased_registry", "registry_id", "lease_expires_at", where="lease_owner IS NOT NULL"),
        _partial("ix_jobs_queued_pushes", "owner", "kind", "state", "seq", where="state = 'queued' AND kind = 'push'"),
        _partial("ix_jobs_queued_lock", "lock_name", where="state = 'queued'"),
        _partial("ix_jobs_queued_awaits", "awaits_id", where="state = 'queued' AND awaits_id IS NOT NULL"),
        # Lists, newest first, by each of their filters.
        Index("ix_jobs_state_seq", "state", "seq"),
        Index("ix_jobs_kind_seq", "kind", "seq"),
        Index("ix_jobs_kind_state_seq", "kind", "state", "seq"),
        Index("ix_jobs_owner_seq", "owner", "seq"),
        Index("ix_jobs_algorithm_seq", "algorithm_id", "seq"),
        Index("ix_jobs_registry_seq", "registry_id", "seq"),
        Index("ix_jobs_registry_state_seq", "registry_id", "state", "seq"),
    )

    seq: Mapped[Sequence]
    id: Mapped[Id]
    kind: Mapped[JobKind] = mapped_column(String(16))
    state: Mapped[JobState] = mapped_column(String(16), default=JobState.QUEUED)
    owner: Mapped[str] = mapped_column(String(64))
    algorithm_id: Mapped[str] = mapped_column(String(36))
    """Empty, as the version and its hash, where the job is about no algorithm."""
    version_id: Mapped[str] = mapped_column(String(36), index=True)
    git_hash: Mapped[str] = mapped_column(String(64))
    build_id: Mapped[str | None] = mapped_column(String(36), index=True)
    """The build that this job makes, joins, publishes or pushes."""
    registry_id: Mapped[str | None] = mapped_column(String(36))
    push_id: Mapped[str | None] = mapped_column(String(36))
    instance_id: Mapped[str | None] = mapped_column(String(36))
    parent_id: Mapped[str | None] = mapped_column(String(36), index=True)
    """The job of the call that asked for this one too."""
    awaits_id: Mapped[str | None] = mapped_column(String(36))
    """The job that must have succeeded before this one is due."""
    superseded_by: Mapped[str | None] = mapped_column(String(36))

    generation: Mapped[int] = mapped_column(default=0)
    """The generation of the push row that this job may write."""
    claim: Mapped[int] = mapped_column(default=0)
    """The fence: raised by each claim."""
    tries: Mapped[int] = mapped_column(default=0)
    """The retry budget: how many tries have failed."""
    losses: Mapped[int] = mapped_column(default=0)
    """How many workers were lost over it."""
    lock_name: Mapped[str] = mapped_column(String(600))
    """The normalised image reference (or version) in which one worker at a time may work."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    """The worker that is at it; also of an ended job until that worker has let go."""
    lease_expires_at: Mapped[Millis | None]
    next_attempt_at: Mapped[Millis | None]
    """Not due before this time."""
    dispatched_at: Mapped[Millis | None]
    dispatch_count: Mapped[int] = mapped_column(default=0)

    request_seq: Mapped[int | None] = mapped_column(BigInteger)
    """The sequence number of the job that a caller asked for, where this one only repeats it; nothing: its own."""
    semantic_version: Mapped[str | None] = mapped_column(String(64))
    """The second tag of a push."""
    credentials: Mapped[str | None] = mapped_column(Text)
    """Sealed credentials given for this push; deleted when the job ends."""
    registry_fingerprint: Mapped[str | None] = mapped_column(String(64))
    """What those credentials are bound to."""
    error_class: Mapped[ErrorClass | None] = mapped_column(String(16))
    error_message: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[CreatedAt]
    started_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]


class WorkerProcess(Base):
    """A worker's parent process, refreshed while it lives and removed when it stops."""

    __tablename__ = "worker_processes"

    seq: Mapped[Sequence]
    name: Mapped[str] = mapped_column(String(128), unique=True)
    queues: Mapped[str] = mapped_column(String(128))
    """Comma-separated, with a comma at both ends."""
    problem: Mapped[str | None] = mapped_column(Text)
    """What keeps it from working (no engine), in a sentence."""
    started_at: Mapped[CreatedAt]
    seen_at: Mapped[Millis]


class PeriodicRun(Base):
    """The last time of one recurring thing."""

    __tablename__ = "periodic_runs"

    seq: Mapped[Sequence]
    name: Mapped[str] = mapped_column(String(32), unique=True)
    at: Mapped[Millis]
