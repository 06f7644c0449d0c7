"""`longshore environments` says which environments there are, and which of their images the engine has."""

import pytest

from tests.unit.cli.conftest import Longshore


def test_the_environments_are_listed_also_without_an_engine(
    longshore: Longshore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody.sock")
    monkeypatch.setenv("LONGSHORE_PYTHON_VERSIONS", "3.8")
    monkeypatch.setenv("LONGSHORE_ENVIRONMENTS", '{"mine": "registry.example.com/mine:1"}')
    shown = longshore("environments").stdout
    for text in ("Python 3.8", "python:3.8-slim-bookworm", "6dadd456-78ef-531f-bfaa-a8a009d23336", "does not respond"):
        assert text in shown
    assert "registry.example.com/mine:1" in shown
    assert "python39" not in shown
