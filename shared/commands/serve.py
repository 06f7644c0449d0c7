"""Make sure that an instance of a version runs: return the present one, or enqueue the start of a new one."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.models import Instance, Job, JobKind, Owner
from shared.errors import LimitReachedError
from shared.fence import lock_version
from shared.instances.states import DesiredState, current_instance, starting_instances
from shared.jobs.dispatch import JobMessage


def ensure_instance(
    session: Session, desired: DesiredState, *, request_id: str | None = None, max_starts: int | None = None
) -> tuple[Instance, list[JobMessage]]:
    """Return the instance for a desired state, and the messages to send. A new instance comes with its start job.

    Raises:
        LimitReachedError: `max_starts` instances of the owner are starting already.
    """
    lock_version(session, desired.version_id)  # so that two calls at the same time make one instance
    present = current_instance(session, desired)
    if present is not None:
        return present, []
    if max_starts is not None:
        session.execute(select(Owner.seq).where(Owner.username == desired.owner).with_for_update())
        if starting_instances(session, desired.owner) >= max_starts:
            raise LimitReachedError(
                f"{max_starts} instances of {desired.owner} are starting, the maximum "
                "(LONGSHORE_SERVING_STARTS_PER_OWNER)."
            )
    instance = Instance(
        id=str(uuid.uuid4()),
        owner=desired.owner,
        algorithm_id=desired.algorithm_id,
        version_id=desired.version_id,
        job_id=str(uuid.uuid4()),
        registry_id=desired.registry_id,
        image=desired.image,
        digest=desired.digest,
        network=desired.network,
        message="Waits for a worker that starts it.",
    )
    job = Job(
        id=instance.job_id,
        kind=JobKind.SERVE,
        owner=desired.owner,
        algorithm_id=desired.algorithm_id,
        version_id=desired.version_id,
        git_hash=desired.git_hash,
        instance_id=instance.id,
        lock_name=f"serve:{instance.id}",
        request_id=request_id,
    )
    session.add_all([instance, job])
    session.flush()
    return instance, [JobMessage(job.id, job.kind)]
