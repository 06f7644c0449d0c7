"""A PostgreSQL server of our own, on a loopback port: quick, forgetful, open to whoever is on this machine."""

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
from dev.services.processes import PartFailedError, free_port, run_to_end, running

_SYSTEM_USER = "postgres"  # made by the package; the server refuses to be root
_OLDEST = 15


@dataclass(frozen=True)
class PrivatePostgres:
    """Where a PostgreSQL server answers; its superuser `longshore` needs no password."""

    port: int

    def url(self, database: str) -> str:
        """The URL of one of its databases, as SQLAlchemy spells it for psycopg 3."""
        return f"postgresql+psycopg://longshore@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL.

        Raises:
            psycopg.errors.DuplicateDatabase: there is one of that name.
        """
        self._administer(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, disconnecting whoever uses it; nothing happens where there is none."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def answers(self) -> bool:
        """Whether the server takes a connection."""
        try:
            self._administer(sql.SQL("SELECT 1"))
        except psycopg.OperationalError:
            return False
        return True

    def _administer(self, statement: sql.SQL | sql.Composed) -> None:
        address = f"postgresql://longshore@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)


@contextmanager
def private_postgres(directory: Path, *, port: int | None = None) -> Iterator[PrivatePostgres]:
    """A PostgreSQL server for the length of the block, its files below `directory`.

    As root it runs as the user `postgres`, who must be able to enter the directories above. The same directory and
    port bring a stopped one back, with its databases.

    Raises:
        PartFailedError: PostgreSQL 15 or newer is not installed, or it does not come up.
    """
    programs = postgres_programs()
    if programs is None or float(programs.parent.name) < _OLDEST:
        raise PartFailedError(f"PostgreSQL {_OLDEST} or newer is not installed: apt-get install postgresql")
    directory.mkdir(parents=True, exist_ok=True)
    user = _own(directory)
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


def _own(directory: Path) -> str | None:
    """Give the directory to the user that the server runs as; None where that is the present one."""
    if os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwnam(_SYSTEM_USER)
    except KeyError as error:
        raise PartFailedError(f"there is no user {_SYSTEM_USER}, as whom PostgreSQL could run") from error
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise PartFailedError(f"the user {_SYSTEM_USER} cannot enter {parent}: name another directory")
    shutil.chown(directory, account.pw_uid, account.pw_gid)
    return _SYSTEM_USER
