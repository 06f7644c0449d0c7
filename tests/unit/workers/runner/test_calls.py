"""Calls that go well, and requests that never become calls."""

import base64
import http.client
import os
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.unit.workers.runner.running import Runner

ECHO = "serve(lambda request: request)"

REFUSALS = [
    # body, content type, path, status, the message contains
    (b"{", "application/json", "/", 400, "not valid JSON"),
    (b"", "application/json", "/", 400, "not valid JSON"),
    (b"NaN", "application/json", "/", 400, "NaN is not JSON"),
    (b"\xff", "text/plain", "/", 400, "not valid text"),
    (b"x", "text/plain; charset=klingon", "/", 415, "klingon"),
    (b"x", "text/html", "/", 415, "text/html is not supported"),
    (b"x", "garbage", "/", 415, "garbage is not supported"),
    (b"1", "application/json", "/?timeout=0", 400, "up to 3000"),
    (b"1", "application/json", "/?timeout=3001", 400, "up to 3000"),
    (b"1", "application/json", "/?timeout=soon", 400, "up to 3000"),
    (b"1", "application/json", "/?timeout=nan", 400, "up to 3000"),
    (b"1", "application/json", "/?stdout=perhaps", 400, "true or false"),
    (b"x" * 2000, "application/json", "/", 413, "larger than 1000 bytes"),
    ([b"x" * 600, b"x" * 600], "application/json", "/", 413, "larger than 1000 bytes"),
    (b"1", "application/json", "/nowhere", 404, "nothing at /nowhere"),
]


def test_content_types_become_the_kits(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    runner = start()
    assert runner.call({"a": [1, "ü", None]}).result == {"content_type": "json", "data": {"a": [1, "ü", None]}}
    assert runner.call(body=b"[1]", content_type=None).result == {"content_type": "json", "data": [1]}
    text = "grüß\n\u2028"
    assert runner.call(body=text.encode(), content_type="text/plain").result == {"content_type": "text", "data": text}
    assert runner.call(body="ü".encode("latin-1"), content_type="text/plain; charset=ISO-8859-1").result["data"] == "ü"
    binary = runner.call(body=b"\x00\xff", content_type="application/octet-stream").result
    assert binary == {"content_type": "binary", "data": base64.b64encode(b"\x00\xff").decode()}


def test_the_answer_holds_content_type_and_duration_and_no_more(
    algorithm: Callable[[str], Path], start: Callable[..., Runner]
) -> None:
    algorithm(ECHO)
    metadata = start().call(1).body["metadata"]
    assert metadata.keys() == {"content_type", "duration"}
    assert metadata["content_type"] == "json"
    assert isinstance(metadata["duration"], float)


def test_refusals_say_why_in_json(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    runner = start(LONGSHORE_MAX_REQUEST_BYTES="1000")
    for body, content_type, path, status, message in REFUSALS:
        reply = runner.request("POST", path, body, {"Content-Type": content_type})
        assert (reply.status, reply.body.keys()) == (status, {"error"}), (content_type, path)
        assert message in reply.error["message"]
    assert runner.call(1).result["data"] == 1


def test_json_nested_too_deeply_is_refused(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    reply = start().call(body=b"[" * 100_000 + b"]" * 100_000)
    assert (reply.status, reply.error["message"]) == (400, "The body is JSON nested too deeply.")


def test_other_methods_and_paths_get_json_too(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    runner = start()
    assert "POST to /" in runner.request("PUT", "/").error["message"]
    assert runner.request("PUT", "/").status == 405
    assert runner.request("GET", "/").status == 404
    connection = socket.socket(socket.AF_UNIX)
    with connection:
        connection.connect(str(runner.socket))
        connection.sendall(b"nonsense\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, response.headers["Content-Type"]) == (400, "application/json")


def test_a_chunked_body_is_put_together(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    assert start().call(body=[b'{"a":', b" 1", b"}"]).result["data"] == {"a": 1}


def test_a_broken_chunk_is_refused(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    runner = start()
    for chunks in (b"zz\r\n1\r\n0\r\n\r\n", b"1\r\n12\r\n0\r\n\r\n", b"-1\r\n1\r\n0\r\n\r\n"):
        headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        assert runner.request("POST", "/", chunks, headers).status == 400


def test_a_large_body_comes_back_whole(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    text = "0123456789" * 500_000
    assert start().call(text).result["data"] == text


def test_a_body_refused_for_what_it_says_of_itself_is_not_asked_for(
    algorithm: Callable[[str], Path], start: Callable[..., Runner]
) -> None:
    algorithm(ECHO)
    runner = start(LONGSHORE_MAX_REQUEST_BYTES="1000")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(runner.socket))
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_an_expected_continue_is_sent(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(start().socket))
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"1")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_one_connection_carries_many_calls(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    runner = start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(runner.socket))
        for number in (b"1", b"2"):
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n" + number)
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert b'"data": ' + number in response.read()


def test_the_socket_is_for_everybody_and_replaces_a_stale_one(
    algorithm: Callable[[str], Path], start: Callable[..., Runner], one_runner: Path
) -> None:
    algorithm(ECHO)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(one_runner / "socket"))
    stale.close()
    runner = start()
    runner.until(lambda: stat.S_IMODE(os.stat(runner.socket).st_mode) == 0o666)
    assert runner.call(1).result["data"] == 1


def test_the_port_answers_beside_the_socket(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm(ECHO)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runner = start(LONGSHORE_PORT=str(port))
    runner.until_loaded()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/", b"7", {"Content-Type": "application/json"})
    assert b'"data": 7' in connection.getresponse().read()
    connection.close()


def test_a_file_in_the_sockets_place_is_not_deleted(
    algorithm: Callable[[str], Path], start: Callable[..., Runner], one_runner: Path
) -> None:
    algorithm(ECHO)
    (one_runner / "socket").write_text("precious")
    runner = start()
    assert runner.process.wait(20) == 2
    assert "is not a socket" in runner.err
    assert (one_runner / "socket").read_text() == "precious"


def test_health_counts_the_calls_that_run_and_those_that_wait(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner]
) -> None:
    algorithm("def apply(request):\n    wait_at('gate')\n\nserve(apply)")
    os.mkfifo(source / "gate")
    runner = start()
    before = runner.until_loaded().body
    assert (before["calls"], before["idle_seconds"] >= 0) == (0, True)
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(runner.call, number) for number in range(2)]
        runner.until(lambda: runner.health().body["calls"] == 2)
        assert runner.health().body["idle_seconds"] == 0
        for left in (1, 0):
            with (source / "gate").open("w"):
                pass
            runner.until(lambda left=left: runner.health().body["calls"] == left)
        assert [call.result().status for call in calls] == [200, 200]
    runner.until(lambda: runner.health().body["idle_seconds"] > 0)
