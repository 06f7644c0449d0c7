from pathlib import Path
from typing import Any

import pytest

from workers.runner.settings import STARTUP, RunnerSettingsError, algorithm_environment, read_settings


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings({"LONGSHORE_MODULE": "Hello"})
    assert (settings.port, settings.socket_path, settings.max_request_bytes) == (8080, None, 10 * 1024 * 1024)
    assert settings.source_directory == str(tmp_path)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "LONGSHORE_MODULE"),
        ({"LONGSHORE_MODULE": "../Hello"}, "LONGSHORE_MODULE"),
        ({"LONGSHORE_MODULE": "A", "LONGSHORE_PORT": "65536"}, "up to 65535"),
        ({"LONGSHORE_MODULE": "A", "LONGSHORE_PORT": "0"}, "set one of them"),
        ({"LONGSHORE_MODULE": "A", "LONGSHORE_SOCKET_SEALED": "1"}, "set its path"),
        ({"LONGSHORE_MODULE": "A", "LONGSHORE_MAX_REQUEST_BYTES": "-1"}, "LONGSHORE_MAX_REQUEST_BYTES"),
    ],
)
def test_an_invalid_variable_is_named(environment: dict[str, Any], message: str) -> None:
    with pytest.raises(RunnerSettingsError, match=message):
        read_settings(environment)


def test_a_writable_home_stays(tmp_path: Path) -> None:
    assert algorithm_environment({"HOME": str(tmp_path), "LANG": "de_DE.UTF-8"}) == {
        "HOME": str(tmp_path),
        "LANG": "de_DE.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": STARTUP,
    }


def test_without_a_home_it_is_a_writable_directory() -> None:
    assert algorithm_environment({})["HOME"] == "/tmp"
