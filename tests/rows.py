"""Rows for tests: algorithms, registries and jobs, brought to a state by the functions that the workers call too."""

import itertools
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select, update

from shared.commands.compile import enqueue_compile
from shared.commands.publish import PublishOptions, VersionType, enqueue_publish
from shared.commands.push import Enqueued, PushRequest, enqueue_push
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Base, Build, ImagePush, Job, Registry, Version
from shared.encryption import keyring
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim, lock_claimed
from shared.jobs.claims import claim_job
from shared.jobs.transitions import fail_or_retry, succeed
from shared.pushes.progress import write_success
from shared.registries.rows import record_registry
from shared.registry.credentials import Credentials
from shared.settings import settings
from workers.builds.build import write_built

HASH = "0123456789abcdef0123456789abcdef01234567"
OTHER_HASH = "89abcdef0123456789abcdef0123456789abcdef"
DIGEST = "sha256:" + "d" * 64
OTHER_DIGEST = "sha256:" + "e" * 64

Row = TypeVar("Row", bound=Base)
_numbers = itertools.count(1)


def _is_row(row: Any) -> ColumnElement[bool]:
    return type(row).seq == row.seq  # type: ignore[no-any-return]  # every table has the column, the base has not


def fresh(row: Row) -> Row:
    """Read a row again."""
    with database().reading() as session:
        return session.scalars(select(type(row)).where(_is_row(row))).one()


def one_row(model: type[Row], **values: object) -> Row:
    """Return the one row of a table with these values."""
    with database().reading() as session:
        return session.scalars(select(model).filter_by(**values)).one()


def columns_of(row: Base) -> dict[str, Any]:
    """Return all columns of a row, also the deferred ones."""
    table = type(row).__table__
    with database().reading() as session:
        return dict(session.execute(select(table).where(_is_row(row))).mappings().one())


def change(row: Base, **values: object) -> None:
    """Write to a row without any rule: to let time pass, or to make a state that only a crash leaves."""
    with database().writing() as session:
        session.execute(update(type(row)).where(_is_row(row)).values(values))


def make_registry(url: str | None = None, credentials: Credentials | None = None, **options: object) -> Registry:
    state = {"registry_url": url or f"registry{next(_numbers)}.example.com", **options}
    with database().writing() as session:
        return record_registry(session, keyring(), state, credentials)


def compile_commit(algorithm: Algorithm, git_hash: str = HASH, *registries: Registry, **options: Any) -> Enqueued:
    """Enqueue a compile and its pushes."""
    pushes = [PushRequest(registry.id) for registry in registries]
    with database().writing() as session:
        return enqueue_compile(session, algorithm, git_hash, pushes=pushes, **options)


def publish(algorithm: Algorithm, *registries: Registry, **options: Any) -> Enqueued:
    """Enqueue a publish and its pushes, of a revision if nothing else is said."""
    pushes = [PushRequest(registry.id) for registry in registries]
    with database().writing() as session:
        return enqueue_publish(
            session, algorithm, PublishOptions(**{"version_type": VersionType.REVISION, **options}), pushes=pushes
        )


def push(build: Build, registry: Registry, credentials: Credentials | None = None) -> Job:
    """Enqueue the push of a build."""
    with database().writing() as session:
        algorithm = session.scalars(select(Algorithm).where(Algorithm.id == build.algorithm_id)).one()
        version = session.scalars(select(Version).where(Version.id == build.version_id)).one()
        return enqueue_push(session, algorithm, version, build, PushRequest(registry.id, credentials)).job


def try_claim(job: Job, owner: str = "worker/1") -> Claim | None:
    """Claim a job as a dispatched worker does; return None where it cannot be claimed."""
    return claim_job(database(), job.id, owner=owner, lease_seconds=settings().lease_seconds)


def make_claim(job: Job, owner: str = "worker/1") -> Claim:
    """Claim a job that can be claimed."""
    claim = try_claim(job, owner)
    assert claim is not None, f"{job.kind} {job.id} could not be claimed"
    return claim


def end_build(claim: Claim) -> None:
    """End a claimed build as succeeded."""
    with database().writing() as session:
        lock_claimed(session, claim)
        write_built(
            session,
            claim,
            image_id="sha256:" + "1" * 64,
            manifest_digest=None,
            image_bytes=1024,
            environment_key=None,
        )
        succeed(session, claim)


def end_push(claim: Claim, digest: str = DIGEST, image: str | None = None) -> None:
    """End a claimed push as succeeded, with the image that its row names or another."""
    image = image or one_row(ImagePush, id=claim.push_id).image
    with database().writing() as session:
        lock_claimed(session, claim)
        write_success(session, claim, digest=digest, image=image, message="Confirmed.")
        succeed(session, claim)


def end_badly(claim: Claim, error_class: ErrorClass = ErrorClass.INVALID, message: str = "It broke.") -> None:
    """End an attempt of a claimed job with an error, as a worker does."""
    with database().writing() as session:
        fail_or_retry(
            session, claim, WorkError(error_class, message), delays=settings().retry_delays, unavailable_delay=15
        )


def build_commit(algorithm: Algorithm, git_hash: str = HASH, **options: Any) -> Build:
    """Compile a commit with success."""
    enqueued = compile_commit(algorithm, git_hash, **options)
    end_build(make_claim(enqueued.job))
    return one_row(Build, job_id=enqueued.job.id)


def lose_lease(job: Job) -> None:
    """Let a lease expire, a second ago by the database's clock."""
    change(job, lease_expires_at=now_ms() - 1000)


def milliseconds_from_now(time: int | None) -> int:
    """Return how many milliseconds a time is ahead of the database's clock."""
    assert time is not None
    return time - database_time()


def database_time() -> int:
    """Return the database's clock, in milliseconds since 1970."""
    with database().reading() as session:
        return session.scalars(select(now_ms())).one()


def is_delayed(time: int | None, began: int, minimum_ms: float, maximum_ms: float) -> bool:
    """Return whether `time` was set at that distance from the present, by something that `began` then and has ended.

    It holds however long that took, so a busy machine fails no test.
    """
    return time is not None and began + minimum_ms <= time <= database_time() + maximum_ms
