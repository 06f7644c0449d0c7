"""What an algorithm's clients find in its container: calls of algorithms, and nothing else."""

import http.client
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients import published_client_python
from tests.unit.workers.runner.running import Runner, UnixConnection

CLIENT = """
import os

import Algorithmia
import requests
from Algorithmia import ADK


def message(action):
    try:
        return action()
    except Exception as error:
        return str(error)


def post(client):
    headers = {"Authorization": client.apiKey} if client.apiKey else {}
    answer = requests.post(client.apiAddress + "/v1/algo/acme/Other", json=1, headers=headers)
    return [answer.status_code, answer.json()]


early = post(Algorithmia.client())


def apply(asked):
    client = Algorithmia.client()
    if asked == "pipe":
        named = Algorithmia.client("simKeyOfTheSource")
        return [each.algo("acme/Other").pipe([1]).result for each in (client, named, Algorithmia)]
    if asked == "early":
        return early
    if asked == "now":
        return post(client)
    if asked == "no key":
        return requests.post(client.apiAddress + "/v1/algo/acme/Other", json=1).status_code
    if asked == "environment":
        return dict(os.environ)
    if asked == "data":
        file = client.file("data://acme/models/model.bin")
        return [file.exists(), message(file.getBytes), message(lambda: file.put("text"))]
    paths = ("/v1/algorithms/acme", "/v1/registries", "/healthz", "/", "/v1/algo")
    answers = [requests.request(asked, client.apiAddress + path, data=b"x") for path in paths]
    return [[answer.status_code, answer.headers["X-Error-Message"]] for answer in answers]


ADK(apply).init("hello")
"""


@pytest.fixture
def running(source: Path, start: Callable[..., Runner]) -> Runner:
    (source / "src" / "Hello.py").write_text(CLIENT)
    return start(published_client_python())


def answer_calls(runner: Runner, data: object, answers: list[Any]) -> tuple[list[tuple[str, bytes]], Any]:
    """Call the algorithm, and answer the calls that it makes; return these calls and the body of the response."""
    connection = UnixConnection(runner.socket)
    connection.connect()
    calls = list[tuple[str, bytes]]()
    with connection.sock, connection.sock.makefile("rb") as stream:
        body = json.dumps(data).encode()
        head = f"POST /?outgoing=2 HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sock.sendall(head.encode() + body)
        for answer in answers:
            assert stream.readline() == b"HTTP/1.1 102 Processing\r\n"
            headers = http.client.parse_headers(stream)
            calls.append((headers["Longshore-Target"], stream.read(int(headers["Content-Length"]))))
            said = json.dumps(answer).encode()
            head = f"HTTP/1.1 200\r\nLongshore-Call: {headers['Longshore-Call']}\r\nContent-Length: {len(said)}\r\n\r\n"
            connection.sock.sendall(head.encode() + said)
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        headers = http.client.parse_headers(stream)
        response = json.loads(stream.read(int(headers["Content-Length"])))
        assert stream.read() == b"", "the connection ends with the response"
    return calls, response


def test_each_form_of_the_client_is_handed_on(running: Runner) -> None:
    answers = [{"result": number, "metadata": {"content_type": "json", "duration": 0.1}} for number in range(3)]
    calls, response = answer_calls(running, "pipe", answers)
    assert calls == [("/v1/algo/acme/Other", b"[1]")] * 3
    assert response["result"] == [0, 1, 2]
    assert running.call("early").result[0] == 409, "the next call is an ordinary one"


def test_without_a_call_under_way_a_call_is_refused(running: Runner) -> None:
    status, body = running.call("early").result
    assert (status, body["error"]["code"]) == (409, 2015)
    assert set(body["error"]) == {"id", "code", "message"}
    assert "No call of this algorithm is under way" in body["error"]["message"]


def test_a_sender_that_makes_no_calls_is_not_asked(running: Runner) -> None:
    for query in ("", "?outgoing=0"):
        status, body = running.call("now", query=query).result
        assert (status, body["error"]["code"]) == (403, 2001)
    assert running.call("now", query="?outgoing=many").status == 400


def test_a_request_without_a_key_is_refused(running: Runner) -> None:
    assert running.call("no key", query="?outgoing=1").result == 401


def test_data_is_refused_with_what_is_missing(running: Runner) -> None:
    exists, read, written = running.call("data").result
    assert exists is False
    assert "There is no data:// here" in read
    assert written


def test_other_requests_are_refused(running: Runner) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE"):
        for status, message in running.call(method).result:
            assert status == 403, method
            assert "only calls of algorithms are possible" in message


def test_the_clients_find_an_address_of_the_container_whatever_the_image_says(
    source: Path, start: Callable[..., Runner]
) -> None:
    (source / "src" / "Hello.py").write_text(CLIENT)
    given = {"ALGORITHMIA_API": "https://api.algorithmia.com", "HTTP_PROXY": "http://proxy:1", "NO_PROXY": "a.example"}
    runner = start(published_client_python(), **given)
    environment = runner.call("environment").result
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", environment["ALGORITHMIA_API"])
    assert re.fullmatch(r"sim[A-Za-z0-9]{25}", environment["ALGORITHMIA_API_KEY"])
    assert environment["NO_PROXY"] == "a.example,127.0.0.1"
    assert runner.call("early").result[0] == 409, "the proxy was not asked"


def test_a_call_whose_sender_is_gone_gets_an_error_for_its_own_calls(running: Runner) -> None:
    connection = UnixConnection(running.socket)
    connection.connect()
    with connection.sock as sock, sock.makefile("rb") as stream:
        sock.sendall(b'POST /?outgoing=1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"now"')
        assert stream.readline() == b"HTTP/1.1 102 Processing\r\n"
    assert running.call("early").result[0] == 409, "the call has ended, and the next one is served"


def test_a_runner_that_is_stopped_still_gets_the_answer(running: Runner) -> None:
    connection = UnixConnection(running.socket)
    connection.connect()
    with connection.sock as sock, sock.makefile("rb") as stream:
        sock.sendall(b'POST /?outgoing=1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"now"')
        assert stream.readline() == b"HTTP/1.1 102 Processing\r\n"
        number = http.client.parse_headers(stream)["Longshore-Call"]
        stream.read(1)
        running.process.send_signal(signal.SIGTERM)
        running.until(lambda: not running.listens())
        sock.sendall(f"HTTP/1.1 201\r\nLongshore-Call: {number}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        length = int(http.client.parse_headers(stream)["Content-Length"])
        assert json.loads(stream.read(length))["result"] == [201, {}]
    assert running.process.wait(20) == 0
