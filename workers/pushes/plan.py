"""What is pushed where and with which credentials: read once, before the slow work begins (rule 6)."""

from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Build, ImagePush, Job, Registry
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim
from shared.registries.client import address_of, repository_of
from shared.registries.credentials import credential_provider
from shared.registry.credentials import Credentials
from shared.registry.reference import repository_path
from shared.settings import settings

BELIEVED_WHOLE_MS = 10 * 60_000
"""After a good push a registry that still shows the manifest is not asked for each of its layers again."""


@dataclass(frozen=True)
class PushPlan:
    """One push, as its rows say."""

    algorithm: Algorithm
    build: Build
    registry: Registry
    credentials: Credentials | None
    repository: str
    path: str
    """The repository as the registry itself calls it."""
    image: str
    tags: tuple[str, ...]
    was_whole_lately: bool
    """A push of the same image there went well a moment ago: the registry is believed to have kept it."""

    @property
    def transport(self) -> str:
        """`direct` or `engine`."""
        return self.registry.transport or settings().transport


def read_plan(session: Session, claim: Claim) -> PushPlan:
    """The plan of a claimed push.

    Raises:
        WorkError: the registry was deleted (not_found), or changed in a way that forbids this push (invalid).
    """
    found = session.execute(_PUSH, {"job": claim.job_id}).one()
    job, push, algorithm, build, registry, age = found._tuple()
    if registry.deleted_at is not None:
        raise WorkError(ErrorClass.NOT_FOUND, "The registry was deleted.")
    repository = repository_of(registry, algorithm)
    if push.image != f"{repository}:{job.git_hash}":
        # It was claimed by then, so the change did not move it: its place and what its row says are the old ones.
        raise WorkError(ErrorClass.INVALID, "The registry was changed while this push ran; push again.")
    return PushPlan(
        algorithm=algorithm,
        build=build,
        registry=registry,
        credentials=credential_provider(registry).for_push(job),
        repository=repository,
        path=repository_path(address_of(registry), algorithm.owner, algorithm.name),
        image=push.image,
        tags=(job.git_hash, job.semantic_version) if job.semantic_version else (job.git_hash,),
        was_whole_lately=(
            push.last_success_digest == build.manifest_digest and age is not None and age < BELIEVED_WHOLE_MS
        ),
    )


_PUSH = (
    select(Job, ImagePush, Algorithm, Build, Registry, now_ms() - ImagePush.last_success_at)
    .join(ImagePush, ImagePush.id == Job.push_id)
    .join(Algorithm, Algorithm.id == Job.algorithm_id)
    .join(Build, Build.id == Job.build_id)
    .join(Registry, Registry.id == Job.registry_id)
    .where(Job.id == bindparam("job"))
)
