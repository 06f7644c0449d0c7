"""Run a private PostgreSQL server on a loopback port: fast, without durability, without passwords."""

import os
import pwd
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from dev.services.packages import postgres_programs
from dev.services.processes import ServiceFailedError, free_port, run_to_end, running

_SYSTEM_USER = "postgres"  # created by the package; the server does not run as root
_MIN_VERSION = 15


@dataclass(frozen=True)
class PrivatePostgres:
    """A running PostgreSQL server; its superuser `longshore` needs no password."""

    port: int

    def url(self, database: str) -> str:
        """Return the URL of a database, for SQLAlchemy with psycopg 3."""
        return f"postgresql+psycopg://longshore@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL.

        Raises:
            psycopg.errors.DuplicateDatabase: a database with that name exists.
        """
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and its connections; a no-op if it does not exist."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def answers(self) -> bool:
        """Return whether the server accepts connections."""
        try:
            self._execute(sql.SQL("SELECT 1"))
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        address = f"postgresql://longshore@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)


@contextmanager
def private_postgres(directory: Path, *, port: int | None = None) -> Iterator[PrivatePostgres]:
    """Run a PostgreSQL server during the block, with its files below `directory`.

    Started as root it runs as the user `postgres`, who must be able to enter the parent directories. With the same
    directory and port a later server has the databases of the earlier one.

    Raises:
        ServiceFailedError: PostgreSQL 15 or newer is not installed, or it does not start.
    """
    programs = postgres_programs()
    if programs is None or float(programs.parent.name) < _MIN_VERSION:
        raise ServiceFailedError(f"PostgreSQL {_MIN_VERSION} or newer is not installed: apt-get install postgresql")
    directory.mkdir(parents=True, exist_ok=True)
    user = _change_owner(directory)
    data, log = directory / "data", directory / "postgres.log"
    if not (data / "PG_VERSION").exists():
        _init(programs, data, log, user)
    server = PrivatePostgres(port or free_port())
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(server.port),
        "unix_socket_directories": "",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": "200",
    }
    command = [str(programs / "postgres"), "-D", str(data)]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with running(
        "postgres",
        command,
        log=log,
        ready=server.answers,
        stop_signal=signal.SIGINT,  # its "fast shutdown": SIGTERM would wait until the last client leaves
        user=user,
    ):
        yield server


def _init(programs: Path, data: Path, log: Path, user: str | None) -> None:
    run_to_end(
        "initdb",
        [
            str(programs / "initdb"),
            *("--pgdata", str(data), "--username", "longshore", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        ],
        log=log,
        user=user,
    )


def _change_owner(directory: Path) -> str | None:
    """Make the user of the server the owner of the directory; return None if that is the current user."""
    if os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwnam(_SYSTEM_USER)
    except KeyError as error:
        raise ServiceFailedError(f"there is no user {_SYSTEM_USER} for PostgreSQL: install its package") from error
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise ServiceFailedError(f"the user {_SYSTEM_USER} cannot enter {parent}: use another directory")
    shutil.chown(directory, account.pw_uid, account.pw_gid)
    return _SYSTEM_USER
