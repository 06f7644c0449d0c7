"""Finish a push: keep the new head of the default branch, record it, and compile it unless the push declined that.

`Algorithm.compiled_head` is the last head that was recorded. A repository whose head differs got a push that a crash
interrupted.
"""

import structlog
from sqlalchemy import select

from api import dispatch
from api.git.repositories import Repository
from shared.audit import Actor, record
from shared.commands.compile import enqueue_compile
from shared.commands.queue_limit import require_room_in_queue
from shared.db.engine import database
from shared.db.models import Algorithm
from shared.errors import RequestError
from shared.file_lock import try_file_lock
from shared.jobs.dispatch import JobMessage
from shared.settings import settings

log = structlog.get_logger(__name__)

UNKNOWN = Actor("unknown")
"""The actor of a push that is found after a crash."""


def receive(repository: Repository, *, decline_compile: bool, actor: Actor = UNKNOWN) -> None:
    """Record the repository's head after a push. The second time for the same head does nothing."""
    with repository.locked():
        repository.settle_default_branch()
        head = repository.head()
        if head is None:
            return
        repository.keep(head)
        try:
            messages = _record(repository.id, head, settings().build_on_push and not decline_compile, actor)
        except RequestError as error:
            # The head is recorded without compiling it: the compile would be rejected again at every start.
            log.warning("compile_of_push_rejected", algorithm_id=repository.id, commit=head, reason=error.message)
            messages = _record(repository.id, head, False, actor)
    dispatch.send(messages)


def catch_up() -> None:
    """Finish the pushes and deletions that a crash interrupted, in all hosted repositories."""
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
            with try_file_lock(repository.push_lock) as is_idle:  # a push in progress finishes itself
                if is_idle:
                    repository.remove_interrupted_pushes()
                if is_idle and repository.head() != compiled_head:
                    receive(repository, decline_compile=False)
        except Exception:  # a broken repository must not keep the others from being checked
            log.exception("repository_not_checked", algorithm_id=algorithm_id)


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
        require_room_in_queue(session, algorithm.owner)
        enqueued = enqueue_compile(session, algorithm, head, request_id=actor.request_id)
        record(
            session,
            actor,
            "git.push",
            algorithm.id,
            owner=algorithm.owner,
            commit=head,
            job_id=enqueued.job.id,
            to=list(enqueued.registry_ids),
        )
        log.info("push_compiles", algorithm=algorithm.path, commit=head, job_id=enqueued.job.id)
        return enqueued.messages
