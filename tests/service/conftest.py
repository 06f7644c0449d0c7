"""An installation for each test, on each kind of database."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy
import structlog

from dev.services.postgres import PrivatePostgres
from shared.db.engine import database
from shared.db.models import Base
from tests.environment import longshore_environment


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """Log tracebacks without the values of variables, which take long to print."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.stdlib.add_log_level, plain])


@pytest.fixture(scope="session")
def postgres_tables_url(postgres: PrivatePostgres) -> str:
    """A PostgreSQL database with Longshore's tables, which only this test process uses."""
    url = postgres.create_database(f"tables_{uuid.uuid4().hex[:12]}")
    engine = sqlalchemy.create_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()
    return url


@pytest.fixture
def postgres_installation(postgres_tables_url: str, tmp_path: Path) -> Iterator[str]:
    """Settings, keys and an empty PostgreSQL database: for races that SQLite's single write lock prevents."""
    with longshore_environment(tmp_path, tables=False, database_url=postgres_tables_url):
        with database().writing() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
        yield "postgresql"


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    """The empty Redis to which this process sends messages."""
    from workers.app import celery  # importing it reads the settings

    before = celery.conf.broker_url
    celery.conf.broker_url = redis_url
    celery._after_fork()  # drops its connections
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client
    celery.conf.broker_url = before
    celery._after_fork()


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with Longshore's tables, which tests copy."""
    directory = tmp_path_factory.mktemp("tables")
    with longshore_environment(directory):
        return directory / "longshore.db"


@pytest.fixture
def sqlite_installation(sqlite_tables: Path, tmp_path: Path) -> Iterator[str]:
    """Settings, keys and an empty SQLite database."""
    shutil.copy(sqlite_tables, tmp_path)
    with longshore_environment(tmp_path, tables=False):
        yield "sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest) -> str:
    """Settings, keys and an empty database; the test runs once with each kind."""
    fixture = "sqlite_installation" if request.param == "sqlite" else "postgres_installation"
    return str(request.getfixturevalue(fixture))
