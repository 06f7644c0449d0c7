"""The environment of the cases: private services and a `longshore api` on them, all removed at the end."""

import http.client
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.progress import Progress

from cli.runtime import migrate
from dev.services.postgres import PrivatePostgres, private_postgres
from dev.services.processes import free_port, running
from dev.services.redis import PrivateRedis, private_redis
from shared.db.engine import Database
from shared.db.models import KeyKind
from shared.encryption import new_key
from shared.keys import create_key, create_owner

LONGSHORE = (sys.executable, "-P", "-m", "cli.main")
START_SECONDS = 60
NO_LIMIT = "0"


@dataclass(frozen=True)
class Installation:
    """A migrated database, and the settings for processes that use it."""

    database: Database
    variables: dict[str, str]
    """The settings as environment variables."""
    admin_key: str


class Environment:
    """The services of a run, each started on first use."""

    def __init__(self, directory: Path, stack: ExitStack, progress: Progress) -> None:
        self.directory = directory
        self.progress = progress
        self._stack = stack

    @cached_property
    def postgres(self) -> PrivatePostgres:
        return self._stack.enter_context(private_postgres(self.directory / "postgres"))

    @cached_property
    def redis(self) -> PrivateRedis:
        return self._stack.enter_context(private_redis(self.directory / "redis"))

    @contextmanager
    def installation(self, kind: str, name: str) -> Iterator[Installation]:
        """Make an empty installation on `sqlite` or `postgresql` for the block."""
        directory = self.directory / f"{name}-{kind}"
        directory.mkdir()
        sqlite = kind == "sqlite"
        url = f"sqlite:///{directory / 'longshore.db'}" if sqlite else self.postgres.create_database(name)
        opened = Database(url)
        try:
            migrate(opened)
            with opened.writing() as session:
                create_owner(session, "admin")
                _key, secret = create_key(session, "admin", label="benchmarks", kind=KeyKind.ADMIN)
            variables = {
                "LONGSHORE_DATA_DIR": str(directory),
                "LONGSHORE_DATABASE_URL": url,
                "LONGSHORE_REDIS_URL": self.redis.url(),
                "LONGSHORE_SECRET_KEYS": new_key(),
                "LONGSHORE_LOG_FORMAT": "json",
                # The benchmark sends more requests in a minute than the rate limit allows.
                "LONGSHORE_RATE_LIMIT_READS": NO_LIMIT,
                "LONGSHORE_RATE_LIMIT_CHANGES": NO_LIMIT,
            }
            yield Installation(opened, variables, secret)
        finally:
            opened.close()
            if not sqlite:
                self.postgres.drop_database(name)

    @contextmanager
    def api(self, installation: Installation) -> Iterator[int]:
        """Run `longshore api` with two processes, the default, during the block; yield its port."""
        port = free_port()
        variables = {**installation.variables, "LONGSHORE_API_PORT": str(port), "LONGSHORE_API_WORKERS": "2"}
        with self.service("api", [*LONGSHORE, "api"], port, "/healthz", variables):
            yield port

    @contextmanager
    def service(self, name: str, command: list[str], port: int, path: str, variables: dict[str, str]) -> Iterator[None]:
        """Run a process that serves HTTP during the block."""
        log = self.directory / f"{name}.log"
        with running(
            name, command, log=log, ready=lambda: _answers(port, path), seconds=START_SECONDS, environment=variables
        ):
            yield


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    finally:
        connection.close()


def unset_settings() -> None:
    """Unset all settings of Longshore in this process."""
    for name in [name for name in os.environ if name.startswith("LONGSHORE_") and name != "LONGSHORE_DEV_DIR"]:
        del os.environ[name]
