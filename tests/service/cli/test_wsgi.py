"""Gunicorn as Longshore runs it: answers in the contract's shape, and lets what runs end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.services.processes import Child, free_port, port_answers, running

APPLICATION = """
import logging, sys, time
from pathlib import Path
from gunicorn.config import WorkerConnections
from cli import wsgi_worker
from cli.wsgi import serve
from shared.settings import settings

logging.basicConfig(level="INFO")

WorkerConnections.default = 40
wsgi_worker.CLIENT_TIMEOUT_SECONDS = 1

def application(environ, start_response):
    body = environ["wsgi.input"].read() if environ["PATH_INFO"] == "/length" else b""
    if environ["PATH_INFO"] == "/slow":
        marks = Path(sys.argv[2])
        (marks / (environ["QUERY_STRING"] + "-begun")).touch()
        while not (marks / (environ["QUERY_STRING"] + "-go-on")).exists():
            time.sleep(0.05)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 50_000_000 if environ["PATH_INFO"] == "/large" else b"done %d" % len(body)]

serve(
    settings(), lambda: application, port=int(sys.argv[1]), processes=1, threads=2, preload=True,
    max_body_bytes=4_000_000,
)
"""
GET = b"GET /%b HTTP/1.1\r\nHost: h\r\nConnection: %b\r\n\r\n"


@dataclass
class Served:
    """A server, and the directory of the files with which a test tells a slow request to go on."""

    child: Child
    port: int
    directory: Path

    def wait_until_begun(self, name: bytes) -> None:
        self.child.wait_until((self.directory / f"{name.decode()}-begun").exists, seconds=30)

    def let_go_on(self, name: bytes) -> None:
        (self.directory / f"{name.decode()}-go-on").touch()


@contextmanager
def server(directory: Path) -> Iterator[Served]:
    port = free_port()
    with running(
        "gunicorn",
        [sys.executable, "-c", APPLICATION, str(port), str(directory)],
        log=directory / "log",
        ready=lambda: port_answers(port),
        environment={"LONGSHORE_DATA_DIR": str(directory)},
    ) as child:
        yield Served(child, port, directory)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with server(tmp_path_factory.mktemp("served")) as running_server:
        yield running_server


def raw(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "sent",
    [
        b"this is no HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
def test_an_unreadable_request_gets_an_error_of_the_api(served: Served, sent: bytes) -> None:
    head, _, body = raw(served.port, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == 2015


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_the_sender_of_an_unused_body_gets_the_response(served: Served, connection: bytes) -> None:
    """It reads nothing before it has sent everything, as a busy proxy may."""
    body = b"x" * 2_000_000
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: %b\r\nContent-Length: %d\r\n\r\n" % (connection, len(body))
    with socket.socket() as sender:
        sender.settimeout(30)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # the kernel takes no body that nobody reads
        sender.connect(("127.0.0.1", served.port))
        sender.sendall(head + body)
        assert sender.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_runs_ends_before_the_server_does(tmp_path: Path) -> None:
    with (
        server(tmp_path) as stopped,
        socket.create_connection(("127.0.0.1", stopped.port), timeout=30) as connection,
        socket.create_connection(("127.0.0.1", stopped.port)),  # asks nothing, and is not waited for
    ):
        connection.sendall(GET % (b"slow?run", b"close"))
        stopped.wait_until_begun(b"run")
        os.kill(stopped.child.pid, signal.SIGTERM)
        stopped.child.wait_until(lambda: "Handling signal: term" in stopped.child.log.read_text(), seconds=30)
        stopped.let_go_on(b"run")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert stopped.child.wait(30) == 0


@contextmanager
def connections(port: int, sent: bytes, count: int, *, receive_buffer: int | None = None) -> Iterator[None]:
    """Keep so many connections open, on each of which something was sent and nothing is read."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.connect(("127.0.0.1", port))
            connection.sendall(sent)
        yield


@pytest.mark.parametrize("path", [b"healthz", b"readyz?x"])
def test_health_is_answered_when_every_thread_is_held(served: Served, path: bytes) -> None:
    name = path[:6]
    with connections(served.port, GET % (b"slow?" + name, b"close"), 10):
        served.wait_until_begun(name)
        assert raw(served.port, GET % (path, b"close")).startswith(b"HTTP/1.1 200 ")
        served.let_go_on(name)
        assert raw(served.port, GET % (b"", b"close")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HTTP/1.1\r\n",
        b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nx",
        b"POST /length HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        b"POST /length HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n",
        b"POST /length HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n \r\n",
        GET % (b"", b"close"),
    ],
    ids=[
        "silent",
        "half a head",
        "half a body",
        "half of the chunks",
        "chunks that end for some readers",
        "trailers that end for some readers",
        "not closed by its client",
    ],
)
def test_no_thread_is_held_by_a_client_that_does_not_go_on(served: Served, sent: bytes) -> None:
    """Not by more of them than there may be connections either."""
    with connections(served.port, sent, 60):
        for path in (b"", b"healthz"):
            assert raw(served.port, GET % (path, b"close")).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_holds_a_thread_for_a_while_only(served: Served) -> None:
    with connections(served.port, GET % (b"large", b"close"), 4, receive_buffer=4096):
        assert raw(served.port, GET % (b"", b"close")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_takes_no_thread(served: Served, is_chunked: bool) -> None:
    name = b"large%d" % is_chunked
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 30000000"
    piece = b"x" * 1_000_000
    sent = (b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece) * 30
    request = b"POST / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n%b" % (framing, sent)
    with connections(served.port, GET % (b"slow?" + name, b"close"), 2):
        served.wait_until_begun(name)
        head, _, body = raw(served.port, request).partition(b"\r\n\r\n")
        served.let_go_on(name)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["code"] == 2015


def test_requests_in_one_piece_are_answered_in_turn(served: Served) -> None:
    chunked = b"POST /length HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: 1\r\n\r\n"
    counted = b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nbody2"
    answered = raw(served.port, chunked + counted + GET % (b"", b"keep-alive") + GET % (b"", b"close"))
    assert re.findall(rb"done \d", answered) == [b"done 4", b"done 5", b"done 0", b"done 0"]


def test_a_body_in_pieces_arrives_whole_when_its_sender_is_told_to_send_it(served: Served) -> None:
    head = b"POST /length HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3000000\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as sender:
        sender.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert sender.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for _ in range(3):
            sender.sendall(b"x" * 1_000_000)
        assert b"done 3000000" in (response := b"".join(iter(lambda: sender.recv(65536), b"")))
        assert response.startswith(b"HTTP/1.1 200 ")


def test_a_taken_port_is_said(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION, str(served.port), "x"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert f"SettingsError: cannot listen on 127.0.0.1:{served.port}: Address already in use" in done.stderr
