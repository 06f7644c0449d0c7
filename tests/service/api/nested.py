"""Algorithms that call algorithms: a source that makes the calls that it is told, and something that answers them."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from api.owner_slots import call_slots
from shared.db.models import Algorithm, Version
from shared.db.models.algorithms import PublishState
from tests.rows import one_row
from tests.service.api.invocation import Api
from tests.service.api.runners import Treat, says, treated, unix_listener
from tests.service.api.serving import pending_instance, pushed_version, ready, runner
from tests.unit.workers.runner.running import PROTOCOL, Runner

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

CALLER = f"""{PROTOCOL}
import threading, time, urllib.error, urllib.request

def ask(path, body=None, method="POST", **headers):
    given = {{"Authorization": os.environ["ALGORITHMIA_API_KEY"], "Content-Type": "application/json", **headers}}
    data = None if method == "GET" else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["ALGORITHMIA_API"] + path, data, given, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return [response.status, json.loads(response.read())]
    except urllib.error.HTTPError as error:
        return [error.code, json.loads(error.read())]

def ask_all(asked):
    return [ask(*each) for each in asked["data"]]

def ask_at_once(asked):
    answers = [None] * len(asked["data"])
    def run(number, each):
        answers[number] = ask(*each)
    threads = [threading.Thread(target=run, args=item) for item in enumerate(asked["data"])]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return answers
"""
ASK_ALL = f"{CALLER}\nserve(ask_all)"
"""Makes the calls [path, body] that its input lists, one after the other."""
ASK_AT_ONCE = f"{CALLER}\nserve(ask_at_once)"
"""Makes them all at the same time."""


def result_bytes(value: object) -> bytes:
    """Return the response of a runner with a result."""
    body = json.dumps({"result": value, "metadata": {"content_type": "json", "duration": 0.1}}).encode()
    return OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


class Answered(NamedTuple):
    """The response to a call that a container made."""

    number: int
    status: int
    body: Any


def request_bytes(number: int, target: str, body: bytes = b"null", length: int | None = None) -> bytes:
    """Return the request of a call, as a runner hands it over."""
    head = f"Longshore-Call: {number}\r\nLongshore-Target: {target}\r\nContent-Type: application/json\r\n"
    declared = len(body) if length is None else length
    return f"HTTP/1.1 102 Processing\r\n{head}Content-Length: {declared}\r\n\r\n".encode() + body


def read_answer(stream: BinaryIO) -> Answered:
    """Read the response to a call."""
    status = int(stream.readline().split()[1])
    headers = http.client.parse_headers(stream)
    body = stream.read(int(headers["Content-Length"]))
    return Answered(int(headers["Longshore-Call"]), status, json.loads(body))


def calls(*targets: str) -> Treat:
    """Return a treatment that makes calls, one after the other, and answers with what they were answered."""

    def treat(connection: socket.socket) -> None:
        answers = list[list[Any]]()
        with connection.makefile("rb") as stream:
            for number, target in enumerate(targets):
                connection.sendall(request_bytes(number, target))
                answered = read_answer(stream)
                answers.append([answered.status, answered.body])
        connection.sendall(result_bytes(answers))

    return treat


@contextmanager
def treating(algorithm: Algorithm, version: Version, treat: Treat) -> Iterator[list[bytes]]:
    """Treat the calls of a version; give the requests received so far."""
    with unix_listener(pending_instance(algorithm, version)) as listener, treated(listener, treat) as requests:
        yield requests


def make_version(api: Api, owner: str, name: str, callability: str = "private") -> tuple[Algorithm, Version]:
    """Create an algorithm with a published version, which was built and pushed."""
    api.make_algorithm(owner, name)
    algorithm = one_row(Algorithm, owner=owner, name=name)
    version = pushed_version(
        algorithm, semantic_version="1.0.0", publish_state=PublishState.PUBLISHED, callability=callability
    )
    return algorithm, version


@contextmanager
def answering(algorithm: Algorithm, version: Version, value: object = "answered") -> Iterator[list[bytes]]:
    """Answer the calls of a version with a result; give the requests received so far."""
    with treating(algorithm, version, says(result_bytes(value))) as requests:
        yield requests


def called(api: Api, path: str, *calls: list[Any]) -> Any:
    """Return what an algorithm got for the calls that it was told to make."""
    return api.post(f"/v1/algo/{path}", list(calls))["result"]


@contextmanager
def serving(algorithm: Algorithm, version: Version, source: str, port: int | None = None) -> Iterator[Runner]:
    """Serve a version by a real runner: on its socket, or on a port as in a cluster."""
    instance = pending_instance(algorithm, version)
    environment = {} if port is None else {"LONGSHORE_PORT": str(port)}
    with runner(instance, source, environment) as running:
        ready(instance, None if port is None else f"http://127.0.0.1:{port}")
        yield running


def wait_for_no_calls(owner: str) -> None:
    """Wait until no call of an owner holds a slot."""
    deadline = time.monotonic() + 60
    while call_slots()._taken[owner]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
