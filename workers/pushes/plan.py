"""The plan of a push: image, registry and credentials, read once before the slow work begins (rule 6)."""

from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Build, ImagePush, Job, Registry
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim
from shared.registries.access import address_of, repository_of
from shared.registries.credentials import credential_provider
from shared.registries.defaults import defaults_with_credentials
from shared.registry.credentials import Credentials
from shared.registry.reference import repository_path
from shared.settings import settings

TRUST_BLOBS_MS = 10 * 60_000
"""For so long after a successful push, a registry that has the manifest is not asked for each of its blobs."""

_PUSH = (
    select(Job, ImagePush, Algorithm, Build, Registry, now_ms() - ImagePush.last_success_at < TRUST_BLOBS_MS)
    .join(ImagePush, ImagePush.id == Job.push_id)
    .join(Algorithm, Algorithm.id == Job.algorithm_id)
    .join(Build, Build.id == Job.build_id)
    .join(Registry, Registry.id == Job.registry_id)
    .where(Job.id == bindparam("job"))
)


@dataclass(frozen=True)
class PushPlan:
    """The rows of one push, and what follows from them."""

    algorithm: Algorithm
    build: Build
    registry: Registry
    credentials: Credentials | None
    repository: str
    """The repository as in image references: HOST/PATH."""
    path: str
    """The repository as the registry itself names it."""
    image: str
    tags: tuple[str, ...]
    trusts_blobs: bool
    """Whether the same image was pushed there recently: the registry is assumed to have kept its blobs."""

    @property
    def transport(self) -> str:
        """`direct` or `engine`."""
        return self.registry.transport or settings().transport


def read_plan(session: Session, claim: Claim) -> PushPlan:
    """Read the plan of a claimed push.

    Raises:
        WorkError: the registry was deleted (not_found), or was changed so that this push must not continue (invalid).

    """
    job, push, algorithm, build, registry, is_recent = session.execute(_PUSH, {"job": claim.job_id}).one()
    if registry.deleted_at is not None:
        raise WorkError(ErrorClass.NOT_FOUND, "The registry was deleted.")
    repository = repository_of(registry, algorithm)
    if push.image != f"{repository}:{job.git_hash}":
        # The push was claimed before the change, so its row and its lock are those of the old address.
        raise WorkError(ErrorClass.INVALID, "The registry was changed while this push ran; push again.")
    # If the claim found none, none of a default is used: a refusal of them would count against the registry.
    defaults = claim.own_credentials and defaults_with_credentials(session, registry.id, algorithm.owner, algorithm.id)
    return PushPlan(
        algorithm=algorithm,
        build=build,
        registry=registry,
        credentials=credential_provider(registry).for_push(job, defaults or ()),
        repository=repository,
        path=repository_path(address_of(registry), algorithm.owner, algorithm.name),
        image=push.image,
        tags=(job.git_hash, job.semantic_version) if job.semantic_version else (job.git_hash,),
        trusts_blobs=push.last_success_digest == build.manifest_digest and bool(is_recent),
    )
