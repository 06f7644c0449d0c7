"""Response bodies of jobs."""

from pydantic import ConfigDict, Field

from api.schemas.base import ResponseModel, Timestamp, Uuid
from api.schemas.pushes import ProgressResponse, present_progress
from api.schemas.refreshes import RefreshResponse, present_refresh
from shared.db.models import ImagePush, Job, JobKind, JobState, Refresh
from shared.errors import ErrorClass


class JobErrorResponse(ResponseModel):
    """The reason why a job failed or waits for a retry."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    error_class: ErrorClass | None = Field(alias="class")
    message: str


class JobSummaryResponse(ResponseModel):
    """A job without its children. A refresh has no algorithm, but the field `refresh`."""

    omitted_if_null = frozenset(
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
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    error: JobErrorResponse | None = None
    progress: ProgressResponse | None = None
    refresh: RefreshResponse | None = None
    superseded_by: Uuid | None = None


class JobResponse(JobSummaryResponse):
    """A job with its children."""

    children: list[JobSummaryResponse] = []


def present_job_summary(
    job: Job, algorithm: str | None, push: ImagePush | None, refresh: Refresh | None
) -> JobSummaryResponse:
    return JobSummaryResponse(
        id=job.id,
        kind=job.kind,
        state=job.state,
        algorithm=algorithm,
        git_hash=job.git_hash or None,
        registry_id=job.registry_id,
        attempt=job.tries + 1,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        error=None
        if job.error_message is None
        else JobErrorResponse(error_class=job.error_class, message=job.error_message),
        # The row belongs to the newest push; the progress of an older job is not kept.
        progress=present_progress(push) if push is not None and push.generation == job.generation else None,
        refresh=None if refresh is None else present_refresh(refresh),
        superseded_by=job.superseded_by,
    )
