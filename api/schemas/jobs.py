"""Jobs as callers read them."""

from pydantic import ConfigDict, Field

from api.schemas.base import Moment, ResponseModel, Uuid
from api.schemas.pushes import ProgressResponse, show_progress
from api.schemas.refreshes import RefreshResponse, show_refresh
from shared.db.clock import rfc3339
from shared.db.models import ImagePush, Job, JobKind, JobState, Refresh
from shared.errors import ErrorClass


class JobErrorResponse(ResponseModel):
    """Why a job failed, or waits for another try."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    error_class: ErrorClass | None = Field(alias="class")
    message: str


class PartResponse(ResponseModel):
    """One job, without its parts. What refreshes nodes or runners is about no algorithm, and says `refresh`."""

    left_out = frozenset(
        {
            "algorithm",
            "git_hash",
            "registry_id",
            "started_at",
            "finished_at",
            "error",
            "progress",
            "refresh",
            "superseded_by",
        }
    )

    id: Uuid
    kind: JobKind
    state: JobState
    algorithm: str | None = None
    git_hash: str | None = None
    registry_id: Uuid | None = None
    attempt: int
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    error: JobErrorResponse | None = None
    progress: ProgressResponse | None = None
    refresh: RefreshResponse | None = None
    superseded_by: Uuid | None = None


class JobResponse(PartResponse):
    """The job of a call, with its parts where it has several."""

    children: list[PartResponse] = []


def show_part(job: Job, algorithm: str | None, push: ImagePush | None, refresh: Refresh | None) -> PartResponse:
    """A job as callers read it, without its parts."""
    error = None
    if job.error_message is not None:
        error = JobErrorResponse(error_class=job.error_class, message=job.error_message)
    return PartResponse(
        id=job.id,
        kind=job.kind,
        state=job.state,
        algorithm=algorithm,
        git_hash=job.git_hash or None,
        registry_id=job.registry_id,
        attempt=job.tries + 1,
        created_at=rfc3339(job.created_at) or "",
        started_at=rfc3339(job.started_at),
        finished_at=rfc3339(job.finished_at),
        error=error,
        # The row belongs to the newest push; an older job's own progress is history.
        progress=show_progress(push) if push is not None and push.generation == job.generation else None,
        refresh=None if refresh is None else show_refresh(refresh),
        superseded_by=job.superseded_by,
    )
