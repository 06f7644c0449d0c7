"""`longshore settings`, and what a wrong setting does to every command."""

import json

import pytest

from shared.settings import Settings
from tests.unit.cli.conftest import Longshore


def test_every_setting_is_shown_with_its_meaning(longshore: Longshore) -> None:
    rows = json.loads(longshore("settings", "--json").stdout)
    assert {row["variable"] for row in rows} == {f"LONGSHORE_{name.upper()}" for name in Settings.model_fields}
    assert all(row["meaning"] for row in rows)


def test_the_table_shows_the_present_value_and_masks_secrets(
    longshore: Longshore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_PORT", "9191")
    monkeypatch.setenv("LONGSHORE_DATABASE_URL", "postgresql+psycopg://user:hidden@host/db")
    shown = longshore("settings").stdout
    assert "9191" in shown
    assert "LONGSHORE_STALLED_UNCLAIMED_SECONDS" in shown
    assert "(set)" in shown
    assert "hidden" not in shown


def test_data_dir_stands_for_its_variable(longshore: Longshore) -> None:
    rows = json.loads(longshore("settings", "--json", "--data-dir", "/somewhere").stdout)
    assert next(row["value"] for row in rows if row["variable"] == "LONGSHORE_DATA_DIR") == "/somewhere"


@pytest.mark.parametrize("command", [["settings"], ["migrate"], ["keys", "list"], ["up"], ["api"], ["gateway"]])
@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("LONGSHORE_PORT", "many", "LONGSHORE_PORT: "),
        ("LONGSHORE_SECRET_KEYS", "k1:short", "LONGSHORE_SECRET_KEYS: must be ID:BASE64"),
        ("LONGSHORE_LOG_LEVEL", "loud", "LONGSHORE_LOG_LEVEL: "),
    ],
)
def test_a_wrong_setting_ends_with_a_sentence(
    longshore: Longshore, monkeypatch: pytest.MonkeyPatch, command: list[str], variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = longshore(*command)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"longshore: {sentence}")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "postgresql+nodriver://host/db"])
def test_a_database_url_that_cannot_be_used(longshore: Longshore, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LONGSHORE_DATABASE_URL", url)
    result = longshore("migrate")
    assert (result.exit_code, result.stderr[:33]) == (2, "longshore: LONGSHORE_DATABASE_URL")


def test_a_database_that_does_not_answer(longshore: Longshore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_DATABASE_URL", "postgresql+psycopg://longshore@127.0.0.1:1/none")
    result = longshore("migrate")
    assert result.exit_code == 1
    assert result.stderr.startswith("longshore: The database does not answer: ")


@pytest.mark.parametrize("command", ["api", "git", "worker", "beat"])
def test_the_parts_need_a_redis(longshore: Longshore, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.delenv("LONGSHORE_REDIS_URL")
    result = longshore(command)
    assert result.exit_code == 2
    assert "LONGSHORE_REDIS_URL: must be set" in result.stderr


@pytest.mark.parametrize("command", ["api", "git", "worker", "beat"])
def test_the_parts_need_a_migrated_database(longshore: Longshore, command: str) -> None:
    result = longshore(command)
    assert result.exit_code == 2
    assert "run `longshore migrate` first" in result.stderr


@pytest.mark.parametrize("queues", ["", "nosuch", "builds,nosuch"])
def test_a_worker_knows_its_queues(longshore: Longshore, queues: str) -> None:
    result = longshore("worker", "--queues", queues)
    assert result.exit_code == 2
    assert "builds, pushes, serving, nodes, maintenance" in result.stderr


@pytest.mark.parametrize(
    "command", ["up", "gateway", "api", "git", "worker", "beat", "migrate", "keys", "secrets", "settings"]
)
def test_every_command_explains_itself(longshore: Longshore, command: str) -> None:
    assert f"  {command}  " in longshore("--help").stdout
    explained = longshore(command, "--help")
    assert explained.exit_code == 0
    assert explained.stdout.startswith(f"Usage: longshore {command}")


def test_an_unknown_variable_is_warned_of(longshore: Longshore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_LEASE_SECOND", "30")
    result = longshore("settings", "--json")
    assert result.exit_code == 0
    assert "LONGSHORE_LEASE_SECOND: no such setting; did you mean LONGSHORE_LEASE_SECONDS?" in result.stderr


def test_a_renamed_variable_stops_every_command(longshore: Longshore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_SERVING_MOST", "3")
    result = longshore("migrate")
    assert (result.exit_code, "LONGSHORE_SERVING_MAX_INSTANCES" in result.stderr) == (2, True)
