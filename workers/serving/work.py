"""The work of a start: a version's image is run, and calls are told where it takes them."""

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.database import database
from shared.errors import ErrorClass, WorkError
from shared.jobs.leases import Claim
from shared.models import Algorithm, Job, Registry, Serving, ServingState, Version
from shared.registries import open_own
from shared.sealing import SealError, keyring
from shared.servings.states import mark_ready, mark_replaced, mark_unwanted, show_start
from workers.execution import Finish
from workers.lease import LeaseKeeper
from workers.serving.backend import Start
from workers.serving.chosen import backend
from workers.serving.outdated import why_outdated

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
            show_start(session, self._serving_id, said)
            self._written = said

    def do(self, keeper: LeaseKeeper) -> Finish:
        """Run the image, unless nobody wants it any more."""
        with database().reading() as session:
            start = _read_start(session, self._claim)
        if isinstance(start, str):
            return _end_unwanted(self._claim, start)
        serving_id = self._serving_id = start.serving.id

        def say(text: str) -> None:
            self._said = text
            keeper.moved()

        if backend().one_per_version:
            # From here on nobody may be sent to what it replaces: not even who pins that image in this moment.
            with database().writing() as session:
                mark_replaced(session, start.serving)
        started = backend().start(start, say, keeper.stop)
        log.info("serving", serving_id=serving_id, image=start.serving.image, runs_as=started.runs_as)

        def finish(session: Session) -> None:
            # Where it was ended meanwhile, what was started is known to nobody, and is cleared away as such.
            mark_ready(session, serving_id, endpoint=started.endpoint, runs_as=started.runs_as)

        return finish


def _end_unwanted(claim: Claim, why: str) -> Finish:
    def finish(session: Session) -> None:
        serving_id = session.scalars(select(Job.serving_id).where(Job.id == claim.job_id)).one()
        mark_unwanted(session, str(serving_id), why)

    return finish


def _read_start(session: Session, claim: Claim) -> Start | str:
    """What is to be started, or why nobody wants it any more.

    Raises:
        WorkError: the registry was deleted (invalid), or its credentials cannot be opened (auth).
    """
    found = session.execute(
        select(Serving, Algorithm, Version, Registry)
        .join(Job, Job.serving_id == Serving.id)
        .join(Algorithm, Algorithm.id == Serving.algorithm_id)
        .join(Version, Version.id == Serving.version_id)
        .outerjoin(Registry, Registry.id == Serving.registry_id)
        .where(Job.id == claim.job_id)
    ).one()
    serving, algorithm, version, registry = found._tuple()
    if serving.state != ServingState.WANTED:
        return serving.message
    if registry is not None and registry.deleted_at is not None:
        raise WorkError(ErrorClass.INVALID, "the registry was deleted; call again")
    outdated = why_outdated(session, serving)
    if outdated is not None:
        return outdated
    try:
        credentials = None if registry is None else open_own(keyring(), registry)
    except SealError as error:
        raise WorkError(
            ErrorClass.AUTH,
            f"the registry's own password cannot be opened ({error}): give it anew",
        ) from error
    return Start(serving, algorithm.path, version.git_hash, registry, credentials)
