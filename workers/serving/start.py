"""The work of a start: a version's image is run, and calls are told where it takes them."""

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.db.models import Algorithm, Instance, InstanceState, Job, Registry, Version
from shared.encryption import DecryptionError, keyring
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim
from shared.instances.states import mark_ready, mark_replaced, mark_unneeded, record_start_progress
from shared.registries.rows import open_own
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat
from workers.serving.backend import Start
from workers.serving.factory import backend
from workers.serving.reconcile import why_outdated

log = structlog.get_logger(__name__)


class ServeWork:
    """One start under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._serving_id: str | None = None
        self._said = self._written = ""

    def write(self, session: Session) -> None:
        """Write down how far the start is."""
        said = self._said
        if self._serving_id is not None and said != self._written:
            record_start_progress(session, self._serving_id, said)
            self._written = said

    def do(self, keeper: Heartbeat) -> Finish:
        """Run the image, unless nobody wants it any more."""
        with database().reading() as session:
            start = _read_start(session, self._claim)
        if isinstance(start, str):
            return _end_unwanted(self._claim, start)
        instance_id = self._serving_id = start.instance.id

        def say(text: str) -> None:
            self._said = text
            keeper.record_progress()

        if backend().one_per_version:
            # From here on nobody may be sent to what it replaces: not even who pins that image in this moment.
            with database().writing() as session:
                mark_replaced(session, start.instance)
        started = backend().start(start, say, keeper.stop)
        log.info("serving", instance_id=instance_id, image=start.instance.image, runtime_ref=started.runtime_ref)

        def finish(session: Session) -> None:
            # Where it was ended meanwhile, what was started is known to nobody, and is cleared away as such.
            mark_ready(session, instance_id, endpoint=started.endpoint, runtime_ref=started.runtime_ref)

        return finish


def _end_unwanted(claim: Claim, why: str) -> Finish:
    def finish(session: Session) -> None:
        instance_id = session.scalars(select(Job.instance_id).where(Job.id == claim.job_id)).one()
        mark_unneeded(session, str(instance_id), why)

    return finish


def _read_start(session: Session, claim: Claim) -> Start | str:
    """What is to be started, or why nobody wants it any more.

    Raises:
        WorkError: the registry was deleted (invalid), or its credentials cannot be opened (auth).
    """
    found = session.execute(
        select(Instance, Algorithm, Version, Registry)
        .join(Job, Job.instance_id == Instance.id)
        .join(Algorithm, Algorithm.id == Instance.algorithm_id)
        .join(Version, Version.id == Instance.version_id)
        .outerjoin(Registry, Registry.id == Instance.registry_id)
        .where(Job.id == claim.job_id)
    ).one()
    instance, algorithm, version, registry = found._tuple()
    if instance.state != InstanceState.PENDING:
        return instance.message
    if registry is not None and registry.deleted_at is not None:
        raise WorkError(ErrorClass.INVALID, "the registry was deleted; call again")
    outdated = why_outdated(session, instance)
    if outdated is not None:
        return outdated
    try:
        credentials = None if registry is None else open_own(keyring(), registry)
    except DecryptionError as error:
        raise WorkError(
            ErrorClass.AUTH,
            f"the registry's own password cannot be opened ({error}): give it anew",
        ) from error
    return Start(instance, algorithm.path, version.git_hash, registry, credentials)
