"""Logs say what happened and never a secret."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared.logging import configure_logs
from shared.settings import Settings
from tests.logs import restored_logs

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_logs():
        yield


def logged(log_format: str = "json", level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    configure_logs(Settings(log_format=log_format, log_level=level), process="test", stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_structlog_and_the_standard_library_are_one_stream() -> None:
    stream = logged()
    structlog.contextvars.bind_contextvars(request_id="r1", job_id="j1")
    structlog.get_logger("ours").info("built", layers=3)
    logging.getLogger("theirs").warning("slow: %s", "very")
    structlog.contextvars.clear_contextvars()

    ours, theirs = lines(stream)
    assert (ours["event"], ours["layers"], ours["logger"], ours["process"]) == ("built", 3, "ours", "test")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("slow: very", "warning", "theirs")
    assert {(line["request_id"], line["job_id"]) for line in (ours, theirs)} == {("r1", "j1")}
    assert ours["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "name",
    ["password", "registry_password", "Authorization", "registry_auth", "credentials", "token", "secret_keys"],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_is_named_like_a_secret_is_masked(name: str, log_format: str) -> None:
    stream = logged(log_format)
    structlog.get_logger("ours").info("asked", **{name: PASSWORD, "body": {name: [PASSWORD], "kept": "kept"}})
    assert PASSWORD not in stream.getvalue()
    assert "kept" in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        f"fatal: unable to access https://user:{PASSWORD.replace(' ', '%20')}@git.example.com/x.git",
        "header Authorization: Simple ls0123456789abcdef",
        "header Authorization: Bearer abc.def-ghi_jkl==",
        "a key alone: simQ7h2Zk9pW4xT1mB8vN3cR6yLd",
    ],
)
def test_what_looks_like_a_secret_in_a_text_is_masked(text: str) -> None:
    stream = logged()
    logging.getLogger("theirs").info("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    written = stream.getvalue()
    assert written.count("(masked)") == 2
    assert not any(secret in written for secret in ("horse", "ls0123456789abcdef", "abc.def", "simQ7h"))


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values_of_variables(log_format: str) -> None:
    stream = logged(log_format)

    def fail(given: str) -> None:
        raise ValueError(len(given))

    try:
        fail(PASSWORD)
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    assert "ValueError: 21" in stream.getvalue()
    assert PASSWORD not in stream.getvalue()


def test_the_level_holds_for_everybody() -> None:
    stream = logged(level="warning")
    structlog.get_logger("ours").info("not this")
    logging.getLogger("theirs").info("nor this")
    structlog.get_logger("ours").error("but this")
    assert [line["event"] for line in lines(stream)] == ["but this"]


def test_statements_with_their_parameters_are_not_logged_at_debug_level() -> None:
    stream = logged()
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT INTO registries … [%s]", PASSWORD)
    assert stream.getvalue() == ""
