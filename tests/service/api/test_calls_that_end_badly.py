"""What a caller gets where that which runs answers badly, too slowly, too much, or not at all: never a hang."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dev.services.processes import free_port
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.settings import settings
from tests.rows import fresh
from tests.service.api.invocation import Api
from tests.service.api.runners import port_listener, says, treated, unix_listener
from tests.service.api.serving import ECHO, pending_instance, ready, runner
from tests.unit.workers.runner.running import PROTOCOL

pytestmark = pytest.mark.usefixtures("short_serving_dir")

CALL = "/v1/algo/acme/Hello"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = OK + b'Content-Length: 13\r\n\r\n{"result": 1}'
AS_TOLD = f"""{PROTOCOL}
print("PIPE_INIT_COMPLETE", flush=True)
for line in sys.stdin:
    with open("/tmp/algoout", "w") as pipe:
        pipe.write(json.dumps(json.loads(line)["data"]) + "\\n")
"""
"""An algorithm whose kit says what its caller sends."""
RAW = [
    ("text", "schön", "schön".encode(), "text/plain"),
    ("text", "", b"", "text/plain"),
    ("text", ["no text"], b'["no text"]', "application/json"),
    ("binary", "AP8=", b"\x00\xff", "application/octet-stream"),
    ("json", {"a": [None]}, b'{"a": [null]}', "application/json"),
    ("json", "text", b'"text"', "application/json"),
    ("void", None, b"", "text/plain"),
    ("unheard of", 1, b"1", "application/json"),
]
"""What an algorithm calls its result, the result, and the bytes and the content type that a caller gets."""
ENDED = [
    b"",
    OK + b"Content-Length: 100\r\n\r\n" + b'{"result": ',
]
"""What is left of an answer where a runner ends."""
BROKEN = [
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200",
    OK,
    OK + b"Content-Length: 0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
    OK + b"X: " + b"x" * 70_000,
    OK + b"X: x\r\n" * 200 + b"\r\n",
    OK + b"Content-Length: 2\r\n\r\n{}",
    OK + b"Content-Length: 6\r\n\r\n<html>",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 999 Oh\r\nContent-Length: 0\r\n\r\n",
]
"""What is no answer of a runner."""


@pytest.fixture
def installation(sqlite_installation: str) -> str:
    """Which database it is makes no difference here."""
    return sqlite_installation


@pytest.fixture
def instance(algorithm: Algorithm, version: Version) -> Instance:
    """The serving of the version, wanted."""
    return pending_instance(algorithm, version)


@pytest.fixture(params=[unix_listener, port_listener], ids=["docker", "kubernetes"])
def listener(request: pytest.FixtureRequest, instance: Instance) -> Iterator[socket.socket]:
    """What listens where the serving takes calls, on this machine's engine or in a cluster."""
    with request.param(instance) as listening:
        yield listening


def limited(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Change settings."""
    for name, value in values.items():
        monkeypatch.setenv(f"LONGSHORE_{name.upper()}", str(value))
    settings.cache_clear()


def test_raw_output_is_what_it_is(acme: Api, instance: Instance) -> None:
    with runner(instance, AS_TOLD):
        ready(instance)
        for kind, result, body, content_type in RAW:
            answer = acme.call("POST", f"{CALL}?output=raw", {"result": result, "metadata": {"content_type": kind}})
            assert (answer.status_code, answer.data, answer.mimetype) == (200, body, content_type), kind


def test_raw_output_that_is_none_is_an_error(acme: Api, instance: Instance) -> None:
    with runner(instance, AS_TOLD):
        ready(instance)
        told = {"result": "no base64", "metadata": {"content_type": "binary"}}
        assert "no base64" in acme.post(f"{CALL}?output=raw", told)["error"]["message"]
        assert acme.post(f"{CALL}?output=raw", {"error": {"message": "broke"}})["error"]["message"] == "broke"


def test_over_a_port_it_is_as_over_a_socket(acme: Api, instance: Instance) -> None:
    port = free_port()
    with runner(instance, ECHO, {"LONGSHORE_PORT": str(port)}):
        ready(instance, f"http://127.0.0.1:{port}")
        assert acme.post(CALL, [1])["result"] == {"content_type": "json", "data": [1]}
        assert acme.post(CALL, b"hi", Content_Type="text/plain")["result"]["data"] == "hi"
        assert acme.post(CALL, b"\0\xff", Content_Type="application/octet-stream")["result"]["data"] == "AP8="
        acme.expect_refusal(400, 2013, "POST", CALL, b"{")


def test_a_port_where_nobody_is_yet_is_asked_again(acme: Api, instance: Instance) -> None:
    port = free_port()
    ready(instance, f"http://127.0.0.1:{port}")
    said = acme.expect_refusal(503, 2015, "POST", f"{CALL}?timeout=0.3", 1)
    assert "Connection refused" in said
    assert fresh(instance).state == InstanceState.READY  # a pod is the cluster's to replace
    with ThreadPoolExecutor(1) as callers:
        begun = callers.submit(acme.post, CALL, 1)
        with socket.create_server(("127.0.0.1", port)) as listening, treated(listening, says(GOOD)):
            assert begun.result(30)["result"] == 1


def test_an_answer_that_is_none_is_an_error_and_the_call_is_not_sent_again(
    acme: Api, listener: socket.socket, instance: Instance
) -> None:
    told = [(said, "ended during the call") for said in ENDED] + [(said, "with no result") for said in BROKEN]
    for said, message in told:
        with treated(listener, says(said)) as requests:
            for output in ("", "?output=raw"):
                error = acme.post(f"{CALL}{output}", 1)["error"]
                assert (message in error["message"], error["error_type"]) == (True, "AlgorithmError"), said[-100:]
        assert len(requests) == 2
    assert fresh(instance).state == InstanceState.READY


def test_a_refusal_that_is_none_is_a_refusal(acme: Api, listener: socket.socket) -> None:
    with treated(listener, says(b"HTTP/1.1 400 Oh\r\nContent-Length: 4\r\n\r\n[[[[")):
        assert acme.expect_refusal(400, 2013, "POST", CALL, 1)


@pytest.mark.parametrize("length", [b"Content-Length: 2002\r\n", b""], ids=["told", "untold"])
def test_an_answer_that_is_too_large_is_an_error(
    acme: Api, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, length: bytes
) -> None:
    limited(monkeypatch, call_result_max_bytes=1024)
    with treated(listener, says(OK + length + b'\r\n{"result": "' + b"x" * 1990 + b'"}')):
        for output in ("", "?output=raw"):
            assert "larger than 1024 bytes" in acme.post(f"{CALL}{output}", 1)["error"]["message"]


def test_an_answer_that_trickles_in_ends_at_the_timeout(
    acme: Api, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.invocation.call.RESPONSE_MARGIN_SECONDS", 0.1)

    def trickle(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 1000000\r\n\r\n")
        for _ in range(1_000_000):
            connection.sendall(b"x")
            threading.Event().wait(0.01)

    with treated(listener, trickle):
        assert acme.post(f"{CALL}?timeout=0.2", 1)["error"]["error_type"] == "TimeoutError"


def test_a_line_that_is_full_is_waited_in_and_is_no_end(acme: Api, instance: Instance) -> None:
    with unix_listener(instance, backlog=0) as listening, ThreadPoolExecutor(1) as callers:
        with socket.socket(socket.AF_UNIX) as before:  # the one for which there is room
            before.connect(listening.getsockname())
            said = acme.expect_refusal(503, 2015, "POST", f"{CALL}?timeout=0.3", 1)
            assert "the backlog of the socket stayed full" in said
            assert fresh(instance).state == InstanceState.READY  # others are being served by it
            begun = callers.submit(acme.post, CALL, 1)
        with treated(listening, says(GOOD)):
            assert begun.result(30)["result"] == 1
