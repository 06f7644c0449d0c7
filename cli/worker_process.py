"""The worker's parent process: Celery's, with its health beside it, and the handing back when it ends.

Imported after the settings are read and REMAP_SIGTERM is set: importing Celery's application needs both.
"""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import structlog
from celery.platforms import SecurityWarning

from cli.errors import SettingError
from cli.graceful_shutdown import GracefulStop
from shared.db.engine import Database, database
from shared.db.models import JobKind
from shared.errors import WorkError
from shared.jobs.leases import release_all, revoke_claims
from shared.jobs.queues import Queues
from shared.jobs.worker_processes import live_workers, remove_worker
from shared.settings import Settings, settings
from workers.app import celery
from workers.health import HealthServer, WorkerHealth
from workers.jobs import dispatch
from workers.jobs.worker_id import WORKER_ID
from workers.serving.reconcile import stop_all

log = structlog.get_logger(__name__)


def work(configured: Settings, queues: Sequence[str], concurrency: int) -> int:
    """Work until SIGTERM or SIGINT; the exit status.

    Raises:
        SettingFailure: the health port is taken.
    """
    # "Not as root": messages are JSON with an id, and whoever may use a Docker engine is root there anyway.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = _Worker(
        hostname=f"{'-'.join(queues)}@{WORKER_ID}",
        queues=list(queues),
        concurrency=concurrency,
        pool="prefork",
        loglevel=configured.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    stop = worker.stopping = GracefulStop(
        worker,
        seconds=configured.shutdown_seconds,
        when_asked=lambda: _release_nodes(database()),
        when_stuck=lambda: _disappear(database()),
    )
    with contextlib.ExitStack() as stack:
        health = stack.enter_context(WorkerHealth(database(), WORKER_ID, queues))
        if configured.worker_health_port:
            stack.enter_context(_health_server(configured.host, configured.worker_health_port, health))
        try:
            worker.start()
        finally:
            stop.ended()
            _release_all(database())
            if Queues.SERVING in queues:
                _end_what_runs(database())
    return 0 if stop.is_requested else worker.exitcode or 1


class _Worker(celery.Worker):  # type: ignore[misc]
    stopping: GracefulStop

    def install_platform_tweaks(self, worker: Any) -> None:
        super().install_platform_tweaks(worker)
        self.stopping.take_signals()


def _health_server(host: str, port: int, health: WorkerHealth) -> HealthServer:
    try:
        return HealthServer((host, port), health)
    except OSError as error:
        raise SettingError(f"LONGSHORE_WORKER_HEALTH_PORT: cannot listen on {host}:{port}: {error.strerror}") from None


def _end_what_runs(opened: Database) -> None:
    """On an engine nothing is left running by the last worker that would tend it; a cluster's goes on."""
    with opened.reading() as session:
        others = [
            node
            for node in live_workers(session)
            if Queues.SERVING in node.queues.split(",") and node.name != WORKER_ID
        ]
    if others or settings().serving != "docker":
        return
    try:
        stop_all()
    except WorkError as error:
        log.warning("what runs was not stopped; the next worker does it", error=error.message)


def _release_nodes(opened: Database) -> None:
    """A refresh takes hours, so it is not waited for: it leaves its node as it was, and another worker goes on."""
    with opened.writing() as session:
        revoke_claims(session, owner_prefix=f"{WORKER_ID}/", kind=JobKind.REFRESH)


def _disappear(opened: Database) -> None:
    """What is left to do for a worker that cannot end in the regular way."""
    with opened.writing() as session:
        remove_worker(session, WORKER_ID)
    _release_all(opened)


def _release_all(opened: Database) -> None:
    """The pool has ended: what its processes could not finish is due again at once."""
    with opened.writing() as session:
        given_back = release_all(session, owner_prefix=f"{WORKER_ID}/")
    if given_back:
        log.info("handed back", jobs=len(given_back))
        dispatch.send(given_back)
