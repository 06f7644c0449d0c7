"""Parts that are turned off and on again answer at the same address, and have what they had."""

import os
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from dev.services.engine import engine_answers, engine_sockets, private_engine
from dev.services.mounts import memory_disk, mounts_below
from dev.services.place import parts_directory, remove_tree
from dev.services.postgres import private_postgres
from dev.services.processes import free_port, port_answers
from dev.services.redis import private_redis
from dev.services.switch import Switch


def test_a_redis_is_away_and_comes_back_at_the_same_port(tmp_path: Path) -> None:
    port = free_port()
    with Switch(lambda: private_redis(tmp_path, port=port)) as redis:
        assert port_answers(port)
        redis.off()
        assert not port_answers(port)
        assert redis.part.port == port
        redis.on()
        assert port_answers(port)
        redis.off()
        redis.off()
    assert not port_answers(port)


def test_a_part_that_was_never_on_is_none() -> None:
    with pytest.raises(RuntimeError, match="never turned on"):
        _ = Switch(lambda: nullcontext()).part


def test_a_postgres_comes_back_with_its_databases() -> None:
    port = free_port()
    with parts_directory() as directory, Switch(lambda: private_postgres(directory / "p", port=port)) as postgres:
        postgres.part.create_database("kept")
        postgres.off()
        assert not postgres.part.answers()
        postgres.on()
        with pytest.raises(psycopg.errors.DuplicateDatabase):
            postgres.part.create_database("kept")


@pytest.mark.skipif(os.geteuid() != 0, reason="a private engine needs root")
def test_an_engine_comes_back_at_the_same_address() -> None:
    sockets = engine_sockets()
    with (
        parts_directory() as directory,
        Switch(lambda: private_engine(directory / "engine", sockets=sockets)) as engine,
    ):
        address = engine.part
        engine.off()
        assert not engine_answers(address)
        assert engine.on() == address
        assert engine_answers(address)
    remove_tree(sockets)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_of_memory_is_as_small_as_it_was_asked_to_be_and_is_gone_afterwards(tmp_path: Path) -> None:
    with memory_disk(tmp_path / "disk", megabytes=1) as disk, pytest.raises(OSError, match="No space"):
        (disk / "file").write_bytes(bytes(2 * 1024 * 1024))
    assert mounts_below(tmp_path) == []
