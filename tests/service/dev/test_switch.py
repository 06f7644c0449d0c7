"""Services that are turned off and on again have the same address and the same data."""

import os
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from dev.services.engine import engine_answers, engine_sockets, private_engine
from dev.services.mounts import memory_disk, mounts_below
from dev.services.postgres import private_postgres
from dev.services.processes import free_port, port_answers
from dev.services.redis import private_redis
from dev.services.switch import Switch
from dev.services.workdir import remove_tree, services_directory


def test_a_redis_comes_back_at_the_same_port(tmp_path: Path) -> None:
    port = free_port()
    with Switch(lambda: private_redis(tmp_path, port=port)) as redis:
        assert port_answers(port)
        redis.off()
        assert not port_answers(port)
        assert redis.service.port == port
        redis.on()
        assert port_answers(port)
        redis.off()
        redis.off()
    assert not port_answers(port)


def test_a_service_that_was_never_on_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="never turned on"):
        _ = Switch(nullcontext).service


def test_a_postgres_comes_back_with_its_databases() -> None:
    port = free_port()
    with services_directory() as directory, Switch(lambda: private_postgres(directory / "p", port=port)) as postgres:
        postgres.service.create_database("kept")
        postgres.off()
        assert not postgres.service.answers()
        postgres.on()
        with pytest.raises(psycopg.errors.DuplicateDatabase):
            postgres.service.create_database("kept")


@pytest.mark.skipif(os.geteuid() != 0, reason="a private engine needs root")
def test_an_engine_comes_back_at_the_same_address() -> None:
    sockets = engine_sockets()
    with (
        services_directory() as directory,
        Switch(lambda: private_engine(directory / "engine", sockets=sockets)) as engine,
    ):
        address = engine.service
        engine.off()
        assert not engine_answers(address)
        assert engine.on() == address
        assert engine_answers(address)
    remove_tree(sockets)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_file_system_in_memory_has_the_given_size_and_is_removed(tmp_path: Path) -> None:
    with memory_disk(tmp_path / "disk", megabytes=1) as disk, pytest.raises(OSError, match="No space"):
        (disk / "file").write_bytes(bytes(2 * 1024 * 1024))
    assert mounts_below(tmp_path) == []
