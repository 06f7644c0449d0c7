"""What differs between the kinds of jobs: their Celery task, and what each step of a job writes into other rows.

A kind has one handler. The steps themselves (claim, retry, end, loss) are the same for all kinds; they call the
handler in the transaction that changes the job's row.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

from sqlalchemy import Row, bindparam, func, update
from sqlalchemy.orm import Session
from typing_extensions import override

from shared.db.clock import now_ms
from shared.db.models import Build, BuildStatus, ImagePush, Job, JobKind, JobState, Owner, PushState, StepState, Version
from shared.db.models.algorithms import PublishState
from shared.fence import FenceLostError
from shared.instances.states import mark_failed, record_start_progress
from shared.jobs.queues import Queues
from shared.pushes.progress import record_event
from shared.refreshes import change_running_steps
from shared.webhooks.events import EventType, emit_build

_PUSH_CLAIMED = (
    update(ImagePush)
    .where(ImagePush.id == bindparam("push"), ImagePush.generation == bindparam("held_generation"))
    .values(
        claim=bindparam("new_claim"),
        state=PushState.IN_PROGRESS,
        message="A worker prepares the push.",
        attempt=bindparam("new_attempt"),
        started_at=func.coalesce(ImagePush.started_at, now_ms()),
        progressed_at=now_ms(),
        done_bytes=0,
        layers_done=0,
    )
    .returning(ImagePush.id)
)
_OWNER_SERVED = update(Owner).where(Owner.username == bindparam("owner")).values(served_at=now_ms())


class CeleryTask(NamedTuple):
    """The Celery task that runs one kind of job."""

    name: str
    queue: str


@dataclass(frozen=True)
class JobHandler(ABC):
    """One kind of job. Messages are for the callers who read the row that the job is about."""

    noun: str
    """The kind in messages: "the build that it waited for"."""
    task: CeleryTask | None
    """None: no worker runs jobs of this kind."""
    ends_with_dependency: bool = False
    """Whether the job succeeds as soon as the job that it waits for has; otherwise it is due then."""

    def claimed(self, session: Session, job: Row[Any]) -> None:  # noqa: B027 - most kinds have nothing to write
        """Write that a worker has claimed the job, if that is shown anywhere; `job` has the columns of `Job`.

        Raises:
            FenceLostError: a newer push owns the row.
        """

    @abstractmethod
    def requeued(self, session: Session, job: Job, message: str) -> None:
        """Write that the job is queued again after an error."""

    def lost(self, session: Session, job: Job, message: str) -> None:
        """Write that the job is queued again because its lease expired."""
        self.requeued(session, job, message)

    def released(self, session: Session, job: Job, message: str) -> None:
        """Write that the job is queued again because its worker stops."""
        self.requeued(session, job, message)

    @abstractmethod
    def ended(self, session: Session, job: Job) -> None:
        """Write that the job has ended without the success of a worker: `job.state` and `job.error_message` say how."""


class CompileHandler(JobHandler):
    """Shows the job in its build."""

    @override
    def claimed(self, session: Session, job: Row[Any]) -> None:
        session.execute(
            update(Build)
            .where(Build.id == job.build_id)
            .values(status=BuildStatus.RUNNING, message=None, started_at=func.coalesce(Build.started_at, now_ms()))
            .execution_options(synchronize_session=False)
        )

    @override
    def requeued(self, session: Session, job: Job, message: str) -> None:
        session.execute(
            update(Build).where(Build.id == job.build_id).values(status=BuildStatus.QUEUED, message=message)
        )

    @override
    def ended(self, session: Session, job: Job) -> None:
        # A job that only joined the build does not end it; it also ends here when the build succeeds.
        ended = session.execute(
            update(Build)
            .where(Build.id == job.build_id, Build.job_id == job.id)
            .values(status=BuildStatus(job.state), message=job.error_message, finished_at=now_ms())
            .returning(Build.id)
        )
        if ended.first() is not None:
            emit_build(session, str(job.build_id), EventType(f"build.{job.state}"))


class PublishHandler(JobHandler):
    """Publishes the version, or makes its reserved number available again. No worker claims a publish."""

    @override
    def requeued(self, session: Session, job: Job, message: str) -> None:
        pass

    @override
    def ended(self, session: Session, job: Job) -> None:
        values: dict[str, Any] = {"publish_state": PublishState.PUBLISHED, "published_at": now_ms()}
        if job.state != JobState.SUCCEEDED:
            values = {
                "publish_state": PublishState.NO,
                "semantic_version": None,
                "build_id": None,
                "publish_job_id": None,
                "callability": "private",
            }
        session.execute(
            update(Version)
            .where(Version.publish_job_id == job.id, Version.publish_state == PublishState.PENDING)
            .values(values)
            .execution_options(synchronize_session="fetch")
        )


class PushHandler(JobHandler):
    """Shows the job in its push row.

    The generation alone is the fence, because the row of the job changes in the same transaction.
    """

    @override
    def claimed(self, session: Session, job: Row[Any]) -> None:
        values = {
            "push": job.push_id,
            "held_generation": job.generation,
            "new_claim": job.claim,
            "new_attempt": job.tries + 1,
        }
        if session.connection().execute(_PUSH_CLAIMED, values).first() is None:
            raise FenceLostError("a newer push owns the row")
        session.connection().execute(_OWNER_SERVED, {"owner": job.owner})

    @override
    def requeued(self, session: Session, job: Job, message: str) -> None:
        # The raised claim also shuts out the worker that had it.
        self._write(
            session,
            job,
            state=PushState.QUEUED,
            message=message,
            claim=job.claim + 1,
            attempt=job.tries + 1,
            finished_at=None,
        )
        record_event(session, str(job.push_id), "retry", message)

    @override
    def lost(self, session: Session, job: Job, message: str) -> None:
        self._write(session, job, state=PushState.STALLED, message=message, claim=job.claim)
        record_event(session, str(job.push_id), "stalled-lost")

    @override
    def released(self, session: Session, job: Job, message: str) -> None:
        self._write(session, job, state=PushState.QUEUED, message=message, claim=job.claim)

    @override
    def ended(self, session: Session, job: Job) -> None:
        state = PushState.CANCELLED if job.state == JobState.CANCELLED else PushState.FAILED
        self._write(
            session,
            job,
            state=state,
            message=job.error_message,
            claim=job.claim + 1,
            attempt=job.tries + 1,
            finished_at=now_ms(),
        )
        record_event(session, str(job.push_id), "ended")

    def _write(self, session: Session, job: Job, **values: Any) -> None:
        session.execute(
            update(ImagePush)
            .where(ImagePush.id == job.push_id, ImagePush.generation == job.generation)
            .values(values)
            .execution_options(synchronize_session=False)
        )


class ServeHandler(JobHandler):
    """Shows the job in the instance that it starts. The work itself says how far the start is."""

    @override
    def requeued(self, session: Session, job: Job, message: str) -> None:
        record_start_progress(session, str(job.instance_id), message)

    @override
    def ended(self, session: Session, job: Job) -> None:
        mark_failed(session, str(job.instance_id), str(job.error_message))


class RefreshHandler(JobHandler):
    """Shows the job in the steps of its refresh, which the work itself writes."""

    @override
    def requeued(self, session: Session, job: Job, message: str) -> None:
        change_running_steps(session, job.id, StepState.WAITING, message)

    @override
    def ended(self, session: Session, job: Job) -> None:
        change_running_steps(session, job.id, StepState.FAILED, str(job.error_message))


def _handler_of(kind: JobKind) -> JobHandler:
    # A match, because mypy then refuses a kind without a handler.
    match kind:
        case JobKind.COMPILE:
            return CompileHandler("build", CeleryTask("longshore.build", Queues.BUILDS), ends_with_dependency=True)
        case JobKind.PUBLISH:
            return PublishHandler("publish", None, ends_with_dependency=True)
        case JobKind.PUSH:
            return PushHandler("push", CeleryTask("longshore.push", Queues.PUSHES))
        case JobKind.SERVE:
            return ServeHandler("start", CeleryTask("longshore.serve", Queues.SERVING))
        case JobKind.REFRESH:
            return RefreshHandler("refresh", CeleryTask("longshore.refresh", Queues.NODES))
        case _:
            assert_never(kind)


HANDLERS = {kind: _handler_of(kind) for kind in JobKind}
TASKS = {kind: handler.task for kind, handler in HANDLERS.items() if handler.task is not None}
