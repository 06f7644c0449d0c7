"""The work of a push: through the engine, believing only what the registry itself confirms (rule 3)."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from shared.database import database
from shared.errors import ErrorClass, WorkError
from shared.jobs.claims import Claim, FenceLost, still_held
from shared.models import Algorithm, Build, ImagePush, Job, Registry
from shared.pushes.progress import Progress, write_progress, write_success
from shared.registries import address_of, fingerprint, open_for_job, open_own, repository_of
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.reference import repository_path
from shared.sealing import SealError, keyring
from workers.engine.progress import PushProgress
from workers.engine.push import push_image
from workers.engine.transport_trust import tls_refusal
from workers.execution import Finish
from workers.lease import LeaseKeeper
from workers.stored_image import stored_image


@dataclass(frozen=True)
class PushPlan:
    """What is pushed where, read once before the slow work begins (rule 6)."""

    algorithm: Algorithm
    build: Build
    registry: Registry
    credentials: Credentials | None
    repository: str
    path: str
    """The repository as the registry itself calls it."""
    image: str
    tags: tuple[str, ...]


class ShownProgress:
    """How far the push is, kept for the lease's thread, which writes it down at most once a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: tuple[Progress, str] | None = None
        self._written: tuple[Progress, str] | None = None

    def show(self, progress: Progress, message: str) -> None:
        """Keep what is to be written next."""
        with self._lock:
            self._now = (progress, message)

    def unwritten(self) -> tuple[Progress, str] | None:
        """What is not in the row yet."""
        with self._lock:
            return None if self._now == self._written else self._now

    def written(self, shown: tuple[Progress, str]) -> None:
        """This is in the row now, and the transaction is committed."""
        with self._lock:
            self._written = shown


class PushWork:
    """One push under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._shown = ShownProgress()
        self._progress = Progress()

    def write(self, session: Session) -> None:
        """Write progress into the push row."""
        changed = self._shown.unwritten()
        if changed is not None:
            write_progress(session, self._claim, *changed)
            event.listen(session, "after_commit", lambda _session: self._shown.written(changed), once=True)

    def do(self, keeper: LeaseKeeper) -> Finish:
        """Push every tag, and have the registry confirm each."""
        with database().reading() as session:
            plan = _plan(session, self._claim)
        with _client(plan, keeper) as client:
            self._say(keeper, f"Asks {plan.registry.registry_url} whether it takes the push.")
            with _at_registry(first_answer=True):
                client.ping()
            with _at_registry():
                _refuse_early(plan, client)
            image = stored_image(plan.algorithm, plan.build, say=lambda text: self._say(keeper, text), stop=keeper.stop)
            with _at_registry():
                digest = self._push(plan, image.image_id, client, keeper)
                self._say(keeper, f"Asks {plan.registry.registry_url} to confirm {digest}.")
                for tag in plan.tags:
                    client.confirm(plan.path, tag, digest)
        message = f"The registry confirmed {digest} under {' and '.join(plan.tags)}.{image.remark}"
        return lambda session: write_success(session, self._claim, digest=digest, image=plan.image, message=message)

    def _push(self, plan: PushPlan, image_id: str, client: RegistryClient, keeper: LeaseKeeper) -> str:
        digests = []
        for tag in plan.tags:
            # The fence cannot reach into a registry: look at it before each tag moves.
            self._look_at_fence()
            with _refusal_looked_at_again(client, plan):
                digests.append(
                    push_image(
                        image_id,
                        plan.repository,
                        tag,
                        plan.credentials,
                        on_progress=self._progress_of(tag, keeper),
                        stop=keeper.stop,
                    )
                )
        if len(set(digests)) != 1:
            raise WorkError(ErrorClass.TRANSIENT, "The engine pushed different bytes for the two tags of one image.")
        return digests[0]

    def _look_at_fence(self) -> None:
        with database().reading() as session:
            if not still_held(session, self._claim):
                raise FenceLost("the job was ended or taken over")

    def _progress_of(self, tag: str, keeper: LeaseKeeper) -> Callable[[PushProgress], None]:
        def on_progress(seen: PushProgress) -> None:
            moved = Progress(seen.done_bytes, seen.total_bytes, seen.layers_done, seen.layers_total)
            if moved != self._progress:
                keeper.moved()
                self._progress = moved
            self._shown.show(moved, f"Pushes {tag}: {seen.layers_done} of {seen.layers_total} layers are there.")

        return on_progress

    def _say(self, keeper: LeaseKeeper, message: str) -> None:
        keeper.moved()
        self._shown.show(self._progress, message)


def _plan(session: Session, claim: Claim) -> PushPlan:
    found = session.execute(
        select(Job, ImagePush, Algorithm, Build, Registry)
        .join(ImagePush, ImagePush.id == Job.push_id)
        .join(Algorithm, Algorithm.id == Job.algorithm_id)
        .join(Build, Build.id == Job.build_id)
        .join(Registry, Registry.id == Job.registry_id)
        .where(Job.id == claim.job_id)
    ).one()
    job, push, algorithm, build, registry = found._tuple()
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
        credentials=_credentials(job, registry),
        repository=repository,
        path=repository_path(address_of(registry), algorithm.owner, algorithm.name),
        image=push.image,
        tags=(job.git_hash, job.semantic_version) if job.semantic_version else (job.git_hash,),
    )


def _credentials(job: Job, registry: Registry) -> Credentials | None:
    """The credentials given for this push, else the registry's own; decrypted here, at use (rule 5)."""
    try:
        if job.credentials is None or job.registry_fingerprint is None:
            return open_own(keyring(), registry)
        if job.registry_fingerprint != fingerprint(registry):
            raise WorkError(
                ErrorClass.INVALID,
                "The registry was changed after the credentials were given, so they were not sent to it; push again.",
            )
        return open_for_job(keyring(), job.id, job.registry_fingerprint, job.credentials)
    except SealError as error:
        raise WorkError(ErrorClass.INVALID, f"The credentials cannot be used: {error}. Give them again.") from None


def _client(plan: PushPlan, keeper: LeaseKeeper) -> RegistryClient:
    registry = plan.registry
    return RegistryClient(
        address_of(registry),
        plan.credentials,
        verify_tls=registry.verify_tls,
        ca_certificate=registry.ca_certificate,
        stop=keeper.stop,
    )


@contextmanager
def _at_registry(*, first_answer: bool = False) -> Iterator[None]:
    """Whatever fails in the block came from the registry; from its first answer where nothing was asked before."""
    try:
        yield
    except WorkError as error:
        error.at_registry, error.first_answer = True, first_answer
        raise


@contextmanager
def _refusal_looked_at_again(client: RegistryClient, plan: PushPlan) -> Iterator[None]:
    """The registry took the credentials a moment ago: where it still does, a refusal in mid-push is one that passes.

    A token that the engine got at the beginning can end while it still uploads.
    """
    try:
        yield
    except WorkError as error:
        if error.error_class != ErrorClass.AUTH or client.push_refusal(plan.path) is not None:
            raise
        raise WorkError(
            ErrorClass.TRANSIENT, f"{error.message} When asked again, the registry took the same credentials."
        ) from error


def _refuse_early(plan: PushPlan, client: RegistryClient) -> None:
    """Find out what the engine would find out late, or would not care about.

    The engine trusts loopback registries blindly and tells its errors in prose only; the registry's own answer is
    classified by its status.
    """
    registry = plan.registry
    unfit = tls_refusal(address_of(registry), verify_tls=registry.verify_tls, ca_certificate=registry.ca_certificate)
    if unfit is not None:
        raise WorkError(ErrorClass.INVALID, unfit)
    refusal = client.push_refusal(plan.path)
    if refusal is not None:
        raise refusal
