"""The parent process of a worker: runs Celery and the worker's health, and releases its jobs when it ends.

Imported after the settings are read and REMAP_SIGTERM is set, because the import of the Celery application needs both.
"""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import structlog
from celery.platforms import SecurityWarning
from typing_extensions import override

from cli.graceful_shutdown import GracefulStop
from shared.db.engine import Database, database
from shared.db.models import JobKind
from shared.errors import WorkError
from shared.jobs.leases import release_all, revoke_claims
from shared.jobs.queues import Queues
from shared.jobs.worker_processes import live_workers, remove_worker
from shared.settings import Settings, SettingsError, settings
from workers.app import celery
from workers.confinement import confinement_warnings
from workers.health import HealthServer, WorkerHealth
from workers.jobs import dispatch
from workers.jobs.worker_id import WORKER_ID
from workers.serving.reconcile import stop_all

log = structlog.get_logger(__name__)


def work(configured: Settings, queues: Sequence[str], concurrency: int) -> int:
    """Work until SIGTERM or SIGINT, and return the exit status.

    Raises:
        SettingsError: the health port is in use.
    """
    # Celery warns of running as root. Messages hold an id in JSON, and a user of a Docker engine is root there anyway.
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
        on_request=lambda: _revoke_refreshes(database()),
        on_timeout=lambda: _abandon(database()),
    )
    for warning in confinement_warnings(queues):
        log.warning("not_confined", warning=warning)
    with contextlib.ExitStack() as stack:
        health = stack.enter_context(WorkerHealth(database(), WORKER_ID, queues))
        if configured.worker_health_port:
            stack.enter_context(_health_server(configured.host, configured.worker_health_port, health))
        try:
            worker.start()
        finally:
            stop.note_ended()
            _release_all(database())
            if Queues.SERVING in queues:
                _stop_instances(database())
    return 0 if stop.is_requested else worker.exitcode or 1


class _Worker(celery.Worker):  # type: ignore[misc]
    stopping: GracefulStop

    @override
    def install_platform_tweaks(self, worker: Any) -> None:
        super().install_platform_tweaks(worker)
        self.stopping.take_signals()


def _health_server(host: str, port: int, health: WorkerHealth) -> HealthServer:
    try:
        return HealthServer((host, port), health)
    except OSError as error:
        raise SettingsError(f"LONGSHORE_WORKER_HEALTH_PORT: cannot listen on {host}:{port}: {error.strerror}") from None


def _stop_instances(opened: Database) -> None:
    """Stop all instances on an engine, unless another worker can reconcile them. Those in a cluster keep running."""
    with opened.reading() as session:
        others = [
            worker
            for worker in live_workers(session)
            if Queues.SERVING in worker.queues.split(",") and worker.name != WORKER_ID
        ]
    if others or settings().serving != "docker":
        return
    try:
        stop_all()
    except WorkError as error:  # the next worker stops them
        log.warning("instances_not_stopped", error=error.message)


def _revoke_refreshes(opened: Database) -> None:
    """Stop the refreshes of this worker, which take too long to wait for. Another worker continues them."""
    with opened.writing() as session:
        revoke_claims(session, owner_prefix=f"{WORKER_ID}/", kind=JobKind.REFRESH)


def _abandon(opened: Database) -> None:
    """Do what remains for a worker that cannot end in the regular way."""
    with opened.writing() as session:
        remove_worker(session, WORKER_ID)
    _release_all(opened)


def _release_all(opened: Database) -> None:
    """Requeue what the processes of the pool, which has ended, did not finish."""
    with opened.writing() as session:
        messages = release_all(session, owner_prefix=f"{WORKER_ID}/")
    if messages:
        log.info("jobs_released", jobs=len(messages))
        dispatch.send(messages)
