"""A runner as it runs in an image, but on a unix socket, with a source tree made by the test."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

import workers.runner

FILES = Path(workers.runner.__file__).parent
PIPE = Path("/tmp/algoout")
PATIENCE = 20.0

PROTOCOL = """
import json, os, sys

def serve(apply):
    print("PIPE_INIT_COMPLETE", flush=True)
    for line in sys.stdin:
        answer = {"result": apply(json.loads(line)), "metadata": {"content_type": "json"}}
        with open("/tmp/algoout", "w") as pipe:
            pipe.write(json.dumps(answer) + "\\n")

def wait_at(gate):
    with open(gate) as opened:
        opened.read()
"""
"""The kit's protocol, for tests that do not need the kit; `wait_at` waits until a named pipe was opened and closed."""


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: Any

    @property
    def result(self) -> Any:
        assert "result" in self.body, self.body
        return self.body["result"]

    @property
    def error(self) -> dict[str, str]:
        assert "error" in self.body, self.body
        error: dict[str, str] = self.body["error"]
        return error


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("runner", timeout=PATIENCE)
        self.path = path

    @override
    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.path))
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class Runner:
    """A running runner; its output goes to files."""

    def __init__(self, source: Path, here: Path, python: Path | str, environment: Mapping[str, str]) -> None:
        self.socket = here / "socket"
        self._out, self._err = here / "out", here / "err"
        self.environment = {
            **os.environ,
            "LONGSHORE_MODULE": "Hello",
            "LONGSHORE_PORT": "0",
            "LONGSHORE_SOCKET": str(self.socket),
            **environment,
        }
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [python, *workers.runner.ARGUMENTS[:-1], FILES],
                cwd=source,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.until(lambda: self.listens() or self.process.poll() is not None)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def call(
        self, data: Any = None, *, body: Any = None, content_type: str | None = "application/json", query: str = ""
    ) -> Reply:
        """POST `data` as JSON, or `body` as it is."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.request("POST", "/" + query, json.dumps(data).encode() if body is None else body, headers)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.headers, json.loads(response.read() or b"null"))
        finally:
            connection.close()

    def health(self) -> Reply:
        return self.request("GET", "/healthz")

    def listens(self) -> bool:
        """Whether somebody may connect. That the socket's file exists does not say so: it is made a moment before."""
        connection = UnixConnection(self.socket)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def until_loaded(self) -> Reply:
        self.until(lambda: self.health().status == 200)
        return self.health()

    def until(self, true: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, self.err
            time.sleep(0.01)

    def stop(self) -> int:
        """Ask the runner to stop, as an engine does; gives its exit status."""
        os.kill(self.first, signal.SIGTERM)
        return self.process.wait(PATIENCE)

    @property
    def first(self) -> int:
        """The runner itself; where `unshare` was started, which passes no signals on, its child: process 1 in there."""
        if "unshare" not in Path(f"/proc/{self.process.pid}/comm").read_text():
            return self.process.pid
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])


def runner_python() -> str:
    return sys.executable
