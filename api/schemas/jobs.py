"""Jobs as callers read them."""

from pydantic import ConfigDict, Field

from api.schemas.base import Moment, Shown, Uuid
from api.schemas.pushes import ProgressShown, show_progress
from shared.clock import rfc3339
from shared.errors import ErrorClass
from shared.models import ImagePush, Job, JobKind, JobState


class JobErrorShown(Shown):
    """Why a job failed, or waits for another try."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    error_class: ErrorClass | None = Field(alias="class")
    message: str


class PartShown(Shown):
    """One job, without its parts."""

    left_out = frozenset({"registry_id", "started_at", "finished_at", "error", "progress", "superseded_by"})

    id: Uuid
    kind: JobKind
    state: JobState
    algorithm: str
    git_hash: str
    registry_id: Uuid | None = None
    attempt: int
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    error: JobErrorShown | None = None
    progress: ProgressShown | None = None
    superseded_by: Uuid | None = None


class JobShown(PartShown):
    """The job of a call, with its parts where it has several."""

    children: list[PartShown] = []


def show_part(job: Job, algorithm: str, push: ImagePush | None) -> PartShown:
    """A job as callers read it, without its parts."""
    error = None
    if job.error_message is not None:
        error = JobErrorShown(error_class=job.error_class, message=job.error_message)
    return PartShown(
        id=job.id,
        kind=job.kind,
        state=job.state,
        algorithm=algorithm,
        git_hash=job.git_hash,
        registry_id=job.registry_id,
        attempt=job.tries + 1,
        created_at=rfc3339(job.created_at) or "",
        started_at=rfc3339(job.started_at),
        finished_at=rfc3339(job.finished_at),
        error=error,
        # The row belongs to the newest push; an older job's own progress is history.
        progress=show_progress(push) if push is not None and push.generation == job.generation else None,
        superseded_by=job.superseded_by,
    )
