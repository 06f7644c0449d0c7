"""Migrations lead to the tables of the models, on both kinds of database, however many ask at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from cli.runtime import configuration, migrate, require_migrated
from shared.db.engine import Database
from shared.db.models import Base, Owner
from shared.settings import SettingsError
from tests.concurrency import run_concurrently

HEAD = ScriptDirectory.from_config(configuration()).get_current_head()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'longshore.db'}"
    return str(request.getfixturevalue("empty_postgres_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.close()


def differences(database: Database) -> list[Any]:
    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def test_the_steps_lead_to_the_models(database: Database) -> None:
    assert migrate(database) == (None, HEAD)
    assert differences(database) == []
    require_migrated(database)


def test_the_conditions_of_partial_indexes_are_there(database: Database) -> None:
    """What `compare_metadata` does not compare: without the condition, one image name could be used only once ever."""
    migrate(database)
    with database.engine.connect() as connection:
        for table, index in (("algorithms", "uq_algorithms_image_path"), ("jobs", "uq_jobs_lock_leased")):
            found = next(one for one in inspect(connection).get_indexes(table) if one["name"] == index)
            assert found["unique"]
            assert any(name.endswith("_where") for name in found["dialect_options"]), found


def test_a_second_time_nothing_is_done(database: Database) -> None:
    migrate(database)
    with database.writing() as session:
        session.add(Owner(username="ada", image_name="ada"))
    assert migrate(database) == (HEAD, HEAD)
    with database.reading() as session:
        assert session.query(Owner).count() == 1


def test_two_at_once_do_it_once(url: str) -> None:
    databases = [Database(url) for _ in range(4)]
    done = run_concurrently(*(lambda opened=opened: migrate(opened) for opened in databases))
    assert sorted(done, key=str) == [(HEAD, HEAD)] * 3 + [(None, HEAD)]
    assert differences(databases[0]) == []
    for opened in databases:
        opened.close()


def test_it_can_be_undone_and_done_again(database: Database) -> None:
    from alembic import command

    migrate(database)
    with database.writing() as session:
        command.downgrade(configuration(session.connection()), "base")
    with database.engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    assert migrate(database) == (None, HEAD)


def test_a_database_without_tables_is_refused(database: Database) -> None:
    with pytest.raises(SettingsError, match="run `longshore migrate` first"):
        require_migrated(database)


def test_a_database_of_a_newer_release_is_left_alone(database: Database) -> None:
    migrate(database)
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match="9999, which this version of Longshore does not know"):
        migrate(database)
    require_migrated(database)  # replicas of the older release go on while the newer one is rolled out
