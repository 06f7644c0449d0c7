"""Redis and PostgreSQL respond, isolate test processes, and are removed at the end."""

import os
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy

from dev.services.postgres import PrivatePostgres, private_postgres
from dev.services.processes import ServiceFailedError, port_answers
from dev.services.redis import private_redis
from dev.services.workdir import services_directory
from tests.service.dev.helpers import processes_naming


def test_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("longshore-services", "here")
        assert client.get("longshore-services") == b"here"
        client.delete("longshore-services")


def test_a_stopped_redis_leaves_no_process(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        with redis.Redis(unix_socket_path=str(server.socket)) as client:
            assert client.ping()
        assert processes_naming(f"127.0.0.1:{server.port}")
    assert processes_naming(f"127.0.0.1:{server.port}") == []
    assert not port_answers(server.port)


def test_postgres_databases_are_apart(postgres_url: str, empty_postgres_url: str) -> None:
    assert postgres_url != empty_postgres_url
    for url in (postgres_url, empty_postgres_url):
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE only_here (id int)"))
        engine.dispose()


def test_a_database_is_made_once_and_dropped(postgres: PrivatePostgres) -> None:
    postgres.create_database("twice")
    with pytest.raises(psycopg.errors.DuplicateDatabase):
        postgres.create_database("twice")
    postgres.drop_database("twice")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres.url("twice").replace("+psycopg", ""))


def test_a_stopped_postgres_leaves_no_process_although_a_client_stayed() -> None:
    with services_directory() as directory:
        with private_postgres(directory / "pg") as server:
            connection = psycopg.connect(server.url("postgres").replace("+psycopg", ""))
            assert processes_naming(str(directory))
        assert processes_naming(str(directory)) == []
        assert not port_answers(server.port)
        connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_postgres_names_a_directory_that_its_user_cannot_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServiceFailedError, match="cannot enter"), private_postgres(closed / "pg"):
        pytest.fail("it cannot have started")
