"""The health of a worker: its row in the database, and /healthz and /readyz where a port is set."""

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import structlog
from kombu.exceptions import OperationalError
from sqlalchemy import exists, select
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from shared.db.engine import Database
from shared.db.models import Registry
from shared.errors import WorkError
from shared.jobs.queues import Queues
from shared.jobs.worker_processes import delete_dead_workers, refresh_worker, remove_worker
from shared.settings import settings
from workers.app import between_forks, celery, opened_between_forks
from workers.docker.connection import ping

log = structlog.get_logger(__name__)

REFRESH_INTERVAL_SECONDS = 10
TIMEOUT_SECONDS = 5
_A_REGISTRY_USES_THE_ENGINE = select(exists().where(Registry.transport == "engine", Registry.deleted_at.is_(None)))


class WorkerHealth:
    """While the block runs, a thread keeps the worker's row fresh, and the problem in it.

    Runs in the worker's parent process, so that a busy pool does not look dead.
    """

    def __init__(self, database: Database, name: str, queues: Sequence[str]) -> None:
        self._database = database
        self._name = name
        self._queues = queues
        self._problem: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()
        self._thread.join(2 * TIMEOUT_SECONDS)
        try:
            with opened_between_forks(self._database) as database, database.writing() as session:
                remove_worker(session, self._name)
        except SQLAlchemyError as error:  # other workers delete the row later
            log.warning("worker_row_not_removed", error=type(error).__name__)

    def problem(self) -> str | None:
        """Return what keeps this worker from working now, in a sentence, or None."""
        return self._engine_problem() or self._database_problem() or _broker_problem()

    def _run(self) -> None:
        self._refresh()
        while not self._ended.wait(REFRESH_INTERVAL_SECONDS):
            self._refresh()

    def _refresh(self) -> None:
        problem = self._engine_problem()
        if problem != self._problem:
            log.warning("worker_not_ready", problem=problem) if problem else log.info("worker_ready_again")
            self._problem = problem
        try:
            with opened_between_forks(self._database) as database, database.writing() as session:
                delete_dead_workers(session)
                refresh_worker(session, self._name, self._queues, problem)
        except SQLAlchemyError as error:
            log.warning("worker_row_not_refreshed", error=type(error).__name__)

    def _engine_problem(self) -> str | None:
        if self._needs_engine():
            try:
                with between_forks():
                    ping(timeout=TIMEOUT_SECONDS)
            except WorkError as error:
                return error.message
        return None

    def _needs_engine(self) -> bool:
        if Queues.BUILDS in self._queues or (Queues.SERVING in self._queues and settings().serving == "docker"):
            return True
        if Queues.PUSHES not in self._queues or settings().transport == "engine":
            return Queues.PUSHES in self._queues
        try:
            with opened_between_forks(self._database) as database, database.reading() as session:
                return session.scalars(_A_REGISTRY_USES_THE_ENGINE).one()
        except SQLAlchemyError:
            return False  # the database is the problem then

    def _database_problem(self) -> str | None:
        try:
            with opened_between_forks(self._database) as database:
                database.ping()
        except SQLAlchemyError:
            return "The database does not respond."
        return None


def _broker_problem() -> str | None:
    try:
        with between_forks(), celery.connection_for_write(connect_timeout=TIMEOUT_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=TIMEOUT_SECONDS)
    except (OperationalError, OSError):
        return "Redis does not respond."
    return None


class HealthServer(ThreadingHTTPServer):
    """Serves /healthz and /readyz of one worker."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], health: WorkerHealth) -> None:
        self.health = health
        super().__init__(address, _HealthRequest)

    @override
    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, name="health-port", daemon=True).start()
        return self

    @override
    def __exit__(self, *_raised: object) -> None:
        self.shutdown()
        self.server_close()


class _HealthRequest(BaseHTTPRequestHandler):
    server: HealthServer
    timeout = TIMEOUT_SECONDS

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._respond(200, "ok")
        elif self.path == "/readyz":
            problem = self.server.health.problem()
            self._respond(503 if problem else 200, problem or "ok")
        else:
            self._respond(404, "there is only /healthz and /readyz")

    def _respond(self, code: int, status: str) -> None:
        body = json.dumps({"status": status}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: probes come every few seconds."""
