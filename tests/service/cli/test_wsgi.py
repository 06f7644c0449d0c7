"""Gunicorn as Longshore runs it: answers in the contract's shape, and lets what runs end."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services.processes import Child, free_port, port_answers, running

APPLICATION = """
import logging, sys, time
from pathlib import Path
from cli.wsgi import serve
from shared.settings import settings

logging.basicConfig(level="INFO")

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        Path(sys.argv[2]).touch()
        while not Path(sys.argv[3]).exists():
            time.sleep(0.05)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]

serve(settings(), lambda: application, port=int(sys.argv[1]), processes=1, threads=2, preload=True)
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Child, int]]:
    port = free_port()
    command = [sys.executable, "-c", APPLICATION, str(port), str(tmp_path / "begun"), str(tmp_path / "go-on")]
    with running(
        "gunicorn",
        command,
        log=tmp_path / "log",
        ready=lambda: port_answers(port),
        environment={"LONGSHORE_DATA_DIR": str(tmp_path)},
    ) as child:
        yield child, port


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
def test_what_cannot_be_read_is_no_page_of_gunicorns(served: tuple[Child, int], sent: bytes) -> None:
    head, _, body = raw(served[1], sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == 2015


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_a_sender_of_a_body_that_nobody_reads_gets_the_response(served: tuple[Child, int], connection: bytes) -> None:
    """It reads nothing before it has sent everything, as a busy proxy may."""
    body = b"x" * 2_000_000
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: %b\r\nContent-Length: %d\r\n\r\n" % (connection, len(body))
    with socket.socket() as sender:
        sender.settimeout(30)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # the kernel takes no body that nobody reads
        sender.connect(("127.0.0.1", served[1]))
        sender.sendall(head + body)
        assert sender.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_runs_ends_before_the_server_does(served: tuple[Child, int], tmp_path: Path) -> None:
    child, port = served
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        child.wait_until((tmp_path / "begun").exists, seconds=30)
        os.kill(child.pid, signal.SIGTERM)
        child.wait_until(lambda: "Handling signal: term" in child.log.read_text(), seconds=30)
        (tmp_path / "go-on").touch()
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert child.wait(30) == 0


def test_a_taken_port_is_said(served: tuple[Child, int]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION, str(served[1]), "x", "x"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert f"SettingsError: cannot listen on 127.0.0.1:{served[1]}: Address already in use" in done.stderr
