"""Attacks of an algorithm that may control everything in its container, by the calls that it makes."""

import io
import select
import socket
import threading
import time
from collections.abc import Callable

import pytest
from flask import Flask

from api.invocation import call
from api.invocation.call_chain import CallChain
from api.invocation.nested_calls import NestedCalls
from api.owner_slots import call_slots
from shared.db.models import Algorithm, KeyKind, Version
from shared.instances.endpoints import DeadlineSocket
from shared.settings import settings
from tests.git_service import make_key
from tests.service.api.invocation import Api
from tests.service.api.nested import (
    ASK_ALL,
    answering,
    called,
    calls,
    make_version,
    read_answer,
    request_bytes,
    result_bytes,
    serving,
    treating,
    wait_for_no_calls,
)

pytestmark = pytest.mark.usefixtures("short_serving_dir")

CALL = "/v1/algo/acme/Hello"
PRIVATE = "/v1/algo/rival/Mine"


@pytest.fixture
def installation(sqlite_installation: str) -> str:
    """Which database it is makes no difference here."""
    return sqlite_installation


def test_an_algorithm_does_not_call_private_ones_of_its_caller(
    rival: Api, admin: Api, algorithm: Algorithm, version: Version
) -> None:
    theirs, public = make_version(rival, "rival", "Mine"), make_version(rival, "rival", "Open", "public")
    targets = ("Mine", f"Mine/{theirs[1].git_hash}", "Mine/latestPrivate", "None", "Open", "Open?stdout=true")
    with serving(algorithm, version, ASK_ALL), answering(*theirs) as requests, answering(*public):
        for api in (rival, admin):
            answers = called(api, "acme/Hello", *[[f"/v1/algo/rival/{target}"] for target in targets])
            assert [status for status, _ in answers] == [404, 404, 404, 404, 200, 403]
            assert len({body["error"]["code"] for _, body in answers[:4]}) == 1, "as one that does not exist"
        assert requests == []


def test_an_algorithm_reaches_no_route_but_calls(acme: Api, admin: Api, algorithm: Algorithm, version: Version) -> None:
    targets = (
        "/v1/algorithms/acme",
        "/v1/algorithms/acme/Hello/compile",
        "/v1/registries",
        "/v1/users/acme/keys",
        "/v1/algo/../registries",
        "/v1/algo/%2e%2e/registries",
        "/v1/algo/acme/Hello/../../../registries",
        "//v1/registries",
        "http://localhost/v1/registries",
        "*",
        "",
    )
    with treating(algorithm, version, calls(*targets)):
        for target, (status, body) in zip(targets, admin.post(CALL)["result"], strict=True):
            assert status in (400, 404), target
            assert set(body["error"]) == {"id", "code", "message"}
    assert acme.get("/v1/registries") == admin.get("/v1/registries")
    assert len(acme.get("/v1/algorithms/acme/Hello/builds")["results"]) == 1


def test_an_algorithm_says_neither_who_it_is_nor_for_whom_it_calls(
    rival: Api, algorithm: Algorithm, version: Version
) -> None:
    theirs = make_version(rival, "rival", "Mine")
    key = make_key("admin", KeyKind.ADMIN)
    headers = f"Authorization: Simple {key}\r\nX-Forwarded-For: 127.0.0.1\r\nLongshore-Call-Chain: 1\r\n"

    def treat(connection: socket.socket) -> None:
        request = request_bytes(1, PRIVATE).replace(b"Longshore-Call:", f"{headers}Longshore-Call:".encode(), 1)
        connection.sendall(request)
        with connection.makefile("rb") as stream:
            connection.sendall(result_bytes(read_answer(stream).status))

    with treating(algorithm, version, treat), answering(*theirs) as requests:
        assert rival.post(CALL)["result"] == 404
        assert requests == []


def test_an_algorithm_whose_owner_did_not_allow_pipelines_makes_no_call(
    acme: Api, algorithm: Algorithm, version: Version
) -> None:
    other = make_version(acme, "acme", "Other")
    acme.put("/v1/algorithms/acme/Hello", {"settings": {"pipeline_enabled": False}})

    def treat(connection: socket.socket) -> None:
        connection.sendall(request_bytes(1, "/v1/algo/acme/Other") + result_bytes(1))

    with treating(algorithm, version, treat), answering(*other) as requests:
        assert "answered with no result" in acme.post(CALL)["error"]["message"]
        assert requests == []


INTERIM = b"HTTP/1.1 102 Processing\r\n"
BROKEN: list[tuple[str, Callable[[socket.socket], None]]] = [
    ("no header", lambda connection: connection.sendall(INTERIM + b"\r\n")),
    ("headers without end", lambda connection: connection.sendall(INTERIM + b"X: x\r\n" * 1000)),
    ("a header without end", lambda connection: connection.sendall(INTERIM + b"X: " + b"x" * 200_000)),
    ("a body without end", lambda connection: connection.sendall(request_bytes(1, CALL, length=10**9))),
    ("a negative body", lambda connection: connection.sendall(request_bytes(1, CALL, length=-1))),
    ("a body that ends", lambda connection: connection.sendall(request_bytes(1, CALL, length=100))),
    ("a negative number", lambda connection: connection.sendall(request_bytes(-1, CALL))),
    ("a long number", lambda connection: connection.sendall(request_bytes(10**99, CALL))),
    ("the end", lambda connection: connection.sendall(request_bytes(1, "/v1/algo/acme/None"))),
]


@pytest.mark.parametrize("treat", [treat for _, treat in BROKEN], ids=[name for name, _ in BROKEN])
def test_a_request_that_is_none_ends_the_call(
    acme: Api, algorithm: Algorithm, version: Version, treat: Callable[[socket.socket], None]
) -> None:
    with treating(algorithm, version, treat) as requests:
        assert "container" in acme.post(CALL)["error"]["message"]
        assert len(requests) == 1, "the call may have begun, and is not repeated"
    wait_for_no_calls("acme")


@pytest.fixture
def _short_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call of a container that does nothing end soon after its timeout."""
    monkeypatch.setattr(call, "RESPONSE_MARGIN_SECONDS", 0.5)


@pytest.mark.usefixtures("_short_margin")
def test_requests_without_end_end_with_the_call(acme: Api, algorithm: Algorithm, version: Version) -> None:
    other = make_version(acme, "acme", "Other")

    def treat(connection: socket.socket) -> None:
        while True:
            connection.sendall(request_bytes(1, "/v1/algo/acme/Other") + request_bytes(2, "/v1/registries"))

    with treating(algorithm, version, treat), answering(*other):
        assert acme.post(f"{CALL}?timeout=1")["error"]["error_type"] == "TimeoutError"
        wait_for_no_calls("acme")


def wait_until_closed(connection: socket.socket) -> None:
    """Wait until the other end closes the connection, and read nothing."""
    end = select.poll()
    end.register(connection, 0)
    end.poll(100_000)


@pytest.mark.parametrize("target", ["/v1/algo/acme/None", "/v1/registries"])
def test_requests_that_are_refused_without_end_keep_no_processor_busy(
    acme: Api, algorithm: Algorithm, version: Version, target: str
) -> None:
    answered = list[int]()

    def treat(connection: socket.socket) -> None:
        ends_at = time.monotonic() + 3
        number = 0
        with connection.makefile("rb") as stream:
            while time.monotonic() < ends_at:
                number += 1
                connection.sendall(request_bytes(number, target))
                answered.append(read_answer(stream).status)
        connection.sendall(result_bytes("done"))

    with treating(algorithm, version, treat):
        assert acme.post(CALL)["result"] == "done"
    assert answered, "honest ones get their answers"
    assert len(answered) <= 60, "3 seconds with pauses of 50 ms and more"


@pytest.mark.parametrize(
    "flood",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"],
    ids=["interim responses", "chunks"],
)
def test_what_no_runner_sends_ends_the_call_at_once(
    acme: Api, algorithm: Algorithm, version: Version, flood: bytes
) -> None:
    def treat(connection: socket.socket) -> None:
        while True:
            connection.sendall(flood)

    with treating(algorithm, version, treat):
        assert "answered with no result" in acme.post(f"{CALL}?timeout=100")["error"]["message"]


def test_what_was_read_ahead_does_not_outlast_the_call(app: Flask, algorithm: Algorithm) -> None:
    """With a pause after each of the requests in one buffer, their number decided when the call ended."""
    chain = CallChain("acme", app.wsgi_app)
    nested = NestedCalls(chain, algorithm, "instance", deadline=time.monotonic() + 100)
    with DeadlineSocket(socket.AF_UNIX) as connection:
        connection.deadline = time.monotonic()
        nested.connect(connection)
        with pytest.raises(TimeoutError):
            nested.receive(io.BytesIO(request_bytes(1, "/v1/registries")))


def test_an_algorithm_that_does_not_read_its_answers_holds_no_thread(
    acme: Api, algorithm: Algorithm, version: Version
) -> None:
    other = make_version(acme, "acme", "Other")

    def treat(connection: socket.socket) -> None:
        for number in range(4):
            connection.sendall(request_bytes(number, "/v1/algo/acme/Other"))
        select.select([connection], [], [])  # an answer has come, which does not fit into the buffers
        connection.sendall(result_bytes("done"))
        wait_until_closed(connection)

    with treating(algorithm, version, treat), answering(*other, "x" * 4_000_000):
        assert acme.post(CALL)["result"] == "done"
        wait_for_no_calls("acme")


@pytest.mark.usefixtures("_short_margin")
def test_an_algorithm_that_makes_calls_and_reads_no_answer_holds_few_threads(
    acme: Api, algorithm: Algorithm, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_PIPELINE_MAX_PARALLEL", "2")
    settings.cache_clear()
    other = make_version(acme, "acme", "Other")

    def treat(connection: socket.socket) -> None:
        for number in range(7):
            connection.sendall(request_bytes(number, "/v1/algo/acme/Other"))
            until = time.monotonic() + 0.2
            while (call_slots()._taken["acme"] > 1 or not requests) and time.monotonic() < until:
                time.sleep(0.01)  # until it has been answered: more at once are refused
        most.append(sum(thread.name == "nested call" for thread in threading.enumerate()))
        wait_until_closed(connection)

    most: list[int] = []
    with treating(algorithm, version, treat), answering(*other, "x" * 4_000_000) as requests:
        assert acme.post(f"{CALL}?timeout=2")["error"]["error_type"] == "TimeoutError"
        assert 1 <= most[0] <= 2 + 1, "those that may be in progress, and one that sends an answer"
        wait_for_no_calls("acme")


def test_a_request_that_is_larger_than_calls_may_be_is_not_read(
    acme: Api, algorithm: Algorithm, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_CALL_MAX_BYTES", "2048")
    settings.cache_clear()

    def treat(connection: socket.socket) -> None:
        connection.sendall(request_bytes(1, "/v1/algo/acme/None", b"1" * 2049) + result_bytes(1))

    with treating(algorithm, version, treat):
        assert "answered with no result" in acme.post(CALL)["error"]["message"]
