"""What a push brought: the default branch's new head is kept, compiled unless that was declined, and remembered.

The column `Algorithm.compiled_head` is the truth about what was seen: a head that differs arrived before a crash.
"""

import structlog
from sqlalchemy import select

from api import dispatch
from api.git.repositories import Repository
from shared.audit import Actor, record
from shared.commands.compile import enqueue_compile
from shared.db.engine import database
from shared.db.models import Algorithm
from shared.errors import RequestError
from shared.jobs.dispatch import JobMessage
from shared.settings import settings

log = structlog.get_logger(__name__)

NOBODY = Actor("unknown")
"""Who pushed what is found only after a crash."""


def receive(repository: Repository, *, decline_compile: bool, actor: Actor = NOBODY) -> None:
    """Take notice of the repository's head after a push. Twice for the same head does nothing twice."""
    with repository.locked():
        repository.settle_default_branch()
        head = repository.head()
        if head is None:
            return
        repository.keep(head)
        compiles = settings().build_on_push and not decline_compile
        try:
            to_send = _record(repository.id, head, compiles, actor)
        except RequestError as refusal:
            # Recorded all the same: it would be refused again at every start.
            log.warning("compile_of_push_refused", algorithm_id=repository.id, commit=head, reason=refusal.message)
            to_send = _record(repository.id, head, False, actor)
    dispatch.send(to_send)


def catch_up() -> None:
    """Look at every hosted repository once, for pushes and deletions whose second half a crash took."""
    with database().reading() as session:
        rows = session.execute(
            select(Algorithm.id, Algorithm.deleted_at, Algorithm.compiled_head)
            .where(Algorithm.repository_url.is_(None))
            .order_by(Algorithm.seq)
        ).all()
    for algorithm_id, deleted_at, compiled_head in rows:
        repository = Repository(algorithm_id)
        if not repository.exists:
            continue
        try:
            if deleted_at is not None:
                repository.delete()
                continue
            repository.remove_stale_locks()
            if repository.head() != compiled_head:
                receive(repository, decline_compile=False)
        except Exception:  # one broken repository must not hide the others
            log.exception("repository_not_looked_at", algorithm_id=algorithm_id)


def _record(algorithm_id: str, head: str, compiles: bool, actor: Actor) -> list[JobMessage]:
    with database().writing() as session:
        algorithm = session.scalar(
            select(Algorithm).where(Algorithm.id == algorithm_id, Algorithm.deleted_at.is_(None)).with_for_update()
        )
        if algorithm is None or algorithm.compiled_head == head:
            return []
        algorithm.compiled_head = head
        if not compiles:
            return []
        ordered = enqueue_compile(session, algorithm, head, request_id=actor.request_id)
        record(session, actor, "git.push", algorithm.id, owner=algorithm.owner, commit=head, job_id=ordered.job.id)
        log.info("push_compiles", algorithm=algorithm.path, commit=head, job_id=ordered.job.id)
        return ordered.messages
