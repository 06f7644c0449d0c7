"""The errors that algorithms return for calls are kept for their owners, and cost nobody else anything."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, func, select

from api.invocation import call_errors as module
from api.invocation.call_errors import MAX_UNWRITTEN_PER_OWNER, CallErrors, call_errors
from api.invocation.runner_client import RunnerResponse
from api.invocation.target import Target
from shared.db.engine import database
from shared.db.models import Algorithm, CallError, Version
from shared.invocation.call_errors import (
    MAX_CHARACTERS,
    MAX_PER_ALGORITHM,
    MAX_PER_OWNER,
    ReturnedError,
    record_errors,
)
from tests.rows import change, make_registry
from tests.service.api.invocation import Api, owner_api
from tests.service.api.runners import says, treated, unix_listener
from tests.service.api.serving import pending_instance, pushed_version

pytestmark = pytest.mark.usefixtures("short_serving_dir")

CALL = "/v1/algo/acme/Hello"
ERRORS = "/v1/algorithms/acme/Hello/errors"
INPUT = "the input of this call"

Returning = Callable[[object], None]


@pytest.fixture(autouse=True)
def _only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread writes once; after that the tests write, so that they know when."""
    monkeypatch.setattr(module, "WRITE_INTERVAL_SECONDS", 3600.0)


def kept(count: int) -> None:
    """Write what is kept, and wait until so many errors are written: the thread may have taken some before."""
    deadline = time.monotonic() + 60
    while True:
        call_errors.write()
        with database().reading() as session:
            if session.scalar(select(func.count()).select_from(CallError)) == count:
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def listener(algorithm: Algorithm, version: Version) -> Iterator[socket.socket]:
    with unix_listener(pending_instance(algorithm, version)) as listening:
        yield listening


def answer(body: object, status: str = "200 OK") -> bytes:
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def error(message: str = "it broke", kind: str = "AlgorithmError", trace: str = "Traceback …\n  line 7") -> object:
    return {"error": {"message": message, "stacktrace": trace, "stack_trace": trace, "error_type": kind}}


def test_an_error_of_the_algorithm_is_kept_for_its_owner(acme: Api, version: Version, listener: socket.socket) -> None:
    change(version, semantic_version="1.2.3")
    with treated(listener, says(answer(error()))):
        acme.post(f"{CALL}/1.2.3", INPUT)
    kept(1)
    (shown,) = acme.get(ERRORS)
    assert set(shown) == {"logs"}
    when, rest = shown["logs"].split(" ", 1)
    assert when.endswith("Z")
    assert rest == "1.2.3: AlgorithmError: it broke\nTraceback …\n  line 7"
    assert INPUT not in shown["logs"]
    assert acme.get("/v1/users/acme/errors") == [shown]


def test_an_error_without_a_type_is_kept_without_one(acme: Api, listener: socket.socket) -> None:
    with treated(listener, says(answer({"error": {"message": "my own", "stacktrace": "line 7", "error_type": None}}))):
        acme.post(CALL, INPUT)
    kept(1)
    [shown] = acme.get(ERRORS)
    assert ": my own\nline 7" in shown["logs"]
    assert "None" not in shown["logs"]


def test_they_are_listed_newest_first(acme: Api, listener: socket.socket) -> None:
    for number in range(3):
        with treated(listener, says(answer(error(f"number {number}")))):
            acme.post(CALL, INPUT)
        kept(number + 1)
    found = [shown["logs"].rpartition("number ")[2][0] for shown in acme.get(ERRORS)]
    assert found == ["2", "1", "0"]


def test_an_asynchronous_call_is_no_exception(acme: Api, listener: socket.socket) -> None:
    with treated(listener, says(answer(error()))):
        acme.post(f"{CALL}?output=void", INPUT)
        kept(1)
    assert "it broke" in acme.get(ERRORS)[0]["logs"]


def test_a_container_that_ended_during_the_call_is_an_error_too(acme: Api, listener: socket.socket) -> None:
    with treated(listener, says(b"")):
        acme.post(CALL, INPUT)
    kept(1)
    assert "container ended" in acme.get(ERRORS)[0]["logs"]


def test_mistakes_of_callers_and_results_are_not(acme: Api, listener: socket.socket) -> None:
    for refusal in ("400 Bad Request", "413 Too Large", "415 Unsupported"):
        with treated(listener, says(answer(error("the body is not JSON"), refusal))):
            assert acme.call("POST", CALL, INPUT).status_code == int(refusal[:3])
    with treated(listener, says(answer({"result": {"error": "no error"}}))):
        acme.post(CALL, INPUT)
    with treated(listener, says(answer(error("too slow", "TimeoutError")))):
        acme.post(f"{CALL}?timeout=1", INPUT)
    kept(0)
    with treated(listener, says(answer(error("too slow", "TimeoutError")))):
        acme.post(CALL, INPUT)
    kept(1)


def test_a_good_call_writes_nothing(acme: Api, listener: socket.socket) -> None:
    written: list[str] = []

    def note(*arguments: Any) -> None:
        written.append(arguments[2])

    with treated(listener, says(answer({"result": 1}))):
        acme.post(CALL, INPUT)  # starts what a first call starts
        event.listen(database().engine, "before_cursor_execute", note)
        try:
            acme.post(CALL, INPUT)
            kept_before = list(written)
        finally:
            event.remove(database().engine, "before_cursor_execute", note)
    assert [statement for statement in kept_before if "call_errors" in statement] == []


def test_others_read_none_of_it(app: Flask, admin: Api, acme: Api, rival: Api, version: Version) -> None:
    change(version, callability="private")
    record(version, "secret of acme")
    assert "secret" in admin.get(ERRORS)[0]["logs"]
    rival.expect_refusal(404, 1001, "GET", ERRORS)
    rival.expect_refusal(403, 2001, "GET", "/v1/users/acme/errors")
    change(version, callability="public")
    rival.expect_refusal(403, 2001, "GET", ERRORS)
    limited = owner_api(app, admin, "acme", algo_acl=["acme/Else"])
    assert limited.get("/v1/users/acme/errors") == []
    assert acme.get("/v1/users/acme/errors")
    admin.expect_refusal(404, 3000, "GET", "/v1/users/nobody/errors")


def record(version: Version, *texts: str, owner: str = "acme", algorithm_id: str | None = None) -> None:
    with database().writing() as session:
        errors = [ReturnedError(owner, algorithm_id or version.algorithm_id, version.id, text) for text in texts]
        record_errors(session, errors)


def test_a_bounded_number_is_kept_of_each_algorithm_and_owner(acme: Api, version: Version) -> None:
    record(version, "of another owner", owner="rival", algorithm_id="r")
    for batch in range(3):
        record(version, *(f"number {batch * 60 + number}" for number in range(60)))
    shown = acme.get(ERRORS)
    assert len(shown) == MAX_PER_ALGORITHM
    assert shown[0]["logs"].endswith("number 179")
    assert shown[-1]["logs"].endswith("number 80")
    for number in range(12):
        record(version, *(["again"] * MAX_PER_ALGORITHM), algorithm_id=f"algorithm {number}")
    with database().reading() as session:
        rows = session.execute(select(CallError.owner, func.count()).group_by(CallError.owner)).all()
    assert {row[0]: row[1] for row in rows} == {"acme": MAX_PER_OWNER, "rival": 1}


def test_a_deleted_algorithm_takes_its_errors_along(acme: Api, version: Version) -> None:
    record(version, "one")
    acme.delete("/v1/algorithms/acme/Hello")
    kept(0)
    assert acme.get("/v1/users/acme/errors") == []


def unwritten(errors: CallErrors) -> dict[str, list[str]]:
    return {owner: [error.text for error in kept] for owner, kept in errors._unwritten.items()}


def test_what_one_owner_returns_displaces_nobody_elses_and_is_bounded(
    algorithm: Algorithm, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CallErrors, "write", lambda _: None)  # the database does not respond
    errors = CallErrors()
    target = Target(algorithm, version, None, None)  # type: ignore[arg-type]  # the image makes no difference
    other = Target(Algorithm(id="r", owner="rival", name="Hello"), version, None, None)  # type: ignore[arg-type]
    errors.keep(other, RunnerResponse(200, json.dumps(error("of the rival")).encode()), timeout=300)
    huge = json.dumps(error("x" * 1_000_000, trace="y" * 1_000_000)).encode()
    for body in [
        huge,
        *([json.dumps(error("x", trace="y" * 100_000)).encode()] * 200),
        b'{"error": {',
        b'{"error": 1}',
    ]:
        errors.keep(target, RunnerResponse(200, body), timeout=300)
    found = unwritten(errors)
    assert len(found["rival"]) == 1
    assert len(found["acme"]) == MAX_UNWRITTEN_PER_OWNER
    assert max(map(len, found["acme"])) <= MAX_CHARACTERS
    assert found["acme"][0].endswith("yyy")


def test_an_error_has_no_control_characters(acme: Api, listener: socket.socket) -> None:
    with treated(listener, says(answer(error("red \x1b[31m\x00 \ud800 text")))):
        acme.post(CALL, INPUT)
    kept(1)
    assert "red \ufffd \ufffd text" in acme.get(ERRORS)[0]["logs"]


def test_another_version_of_the_algorithm_has_its_hash(acme: Api, algorithm: Algorithm) -> None:
    later = pushed_version(algorithm, make_registry(), "f" * 40)
    with unix_listener(pending_instance(algorithm, later)) as listening, treated(listening, says(answer(error()))):
        acme.post(f"{CALL}/{'f' * 40}", INPUT)
    kept(1)
    assert "ffffffffffff: AlgorithmError" in acme.get(ERRORS)[0]["logs"]
