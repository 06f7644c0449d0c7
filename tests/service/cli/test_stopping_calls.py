"""`longshore calls` that ends in the middle of a call that nobody waits for: how the call ended is told truthfully."""

import json
import os
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from cli.runtime import migrate
from dev.services.processes import Child, free_port, port_answers
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import CallError, CallRequest, CallState
from tests.environment import longshore_environment
from tests.git_service import make_algorithm, make_key
from tests.rows import HASH, change, one_row
from tests.service.api.serving import directory_of, pending_instance, pushed_version, ready, runner
from tests.service.cli.running import kill, longshore, until
from tests.unit.workers.runner.running import PROTOCOL

HELD = f"""{PROTOCOL}
import time

def apply(asked):
    open("begun", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    if os.path.exists("broken"):
        raise ValueError("it is broken")

serve(apply)
"""


@dataclass(frozen=True)
class Called:
    """A version that a runner serves, as its owner calls it."""

    path: str
    """OWNER/NAME."""
    key: str = field(repr=False)
    source: Path


class Calls:
    """A `longshore calls` and what it calls."""

    def __init__(self, child: Child, port: int, called: Called) -> None:
        self.child = child
        self.port = port
        self._called = called

    def begin(self) -> str:
        """A call that is under way; its id."""
        begun = self._ask("POST", f"/v1/algo/{self._called.path}/{HASH}?output=void&timeout=60", b"1")
        until((self._called.source / "begun").exists, "the algorithm has the call")
        return str(begun["request_id"])

    def let_go(self) -> None:
        """Let the algorithm end its call."""
        (self._called.source / "go").touch()

    def told(self, request_id: str) -> Any:
        """What is told of a call."""
        return self._ask("GET", f"/v1/requests/{request_id}")

    def has_failed(self, request_id: str) -> bool:
        """Whether a call has ended with an error."""
        return bool(self.told(request_id)["state"] == "failed")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Simple {self._called.key}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, method=method, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@pytest.fixture
def called(tmp_path: Path, redis_url: str) -> Iterator[Called]:
    """That version, in an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="serving-") as sockets:  # a socket's path has 107 bytes (unix(7))
        options = {"redis_url": redis_url, "serving_dir": sockets, "calls_workers": 1}
        with longshore_environment(tmp_path, tables=False, **options):
            migrate(database())
            algorithm = make_algorithm()
            instance = pending_instance(algorithm, pushed_version(algorithm))
            with runner(instance, HELD):
                ready(instance)
                yield Called(algorithm.path, make_key(algorithm.owner), directory_of(instance) / "source")


@contextmanager
def longshore_calls(called: Called, directory: Path, *, shutdown_seconds: int) -> Iterator[Calls]:
    """A `longshore calls`, for the length of the block."""
    port, log = free_port(), directory / "calls.log"
    variables = {"LONGSHORE_SHUTDOWN_SECONDS": str(shutdown_seconds)}
    command = ("calls", "--port", str(port))
    with longshore(*command, log=log, ready=lambda: port_answers(port), variables=variables) as child:
        yield Calls(child, port, called)


def test_killed_in_the_middle_of_a_call_it_is_lost_when_its_time_is_over(called: Called, tmp_path: Path) -> None:
    with longshore_calls(called, tmp_path, shutdown_seconds=1) as calls:
        begun = calls.begin()
        (pool,) = calls.child.family()[:-1]
        kill(pool)
        until(lambda: pool not in calls.child.family(), "the process is gone")
        assert calls.told(begun)["state"] == "running"  # nobody can know yet that it is not
        change(one_row(CallRequest, id=begun), deadline_at=now_ms() - 1)
        told = calls.told(begun)
        assert told["state"] == "lost"
        assert "not made again" in told["error"]["message"]
        assert told["ended_at"]
        calls.let_go()
        following = calls.begin()
        until(lambda: calls.told(following)["state"] == "succeeded", "another call goes on to its end")
        assert calls.told(begun)["state"] == "lost"


def test_told_to_stop_it_lets_the_call_end(called: Called, tmp_path: Path) -> None:
    with longshore_calls(called, tmp_path, shutdown_seconds=60) as calls:
        begun = calls.begin()
        os.kill(calls.child.pid, signal.SIGTERM)
        until(lambda: not port_answers(calls.port), "it takes no more calls")
        assert one_row(CallRequest, id=begun).state == CallState.RUNNING
        calls.let_go()
        assert calls.child.wait(60) == 0
    assert one_row(CallRequest, id=begun).state == CallState.SUCCEEDED


def test_told_to_stop_it_writes_the_error_of_the_last_call(called: Called, tmp_path: Path) -> None:
    (called.source / "broken").touch()
    with longshore_calls(called, tmp_path, shutdown_seconds=60) as calls:
        for _ in range(2):  # the writer pauses after the first error
            begun = calls.begin()
            calls.let_go()
            until(partial(calls.has_failed, begun), "the call has ended")
        calls.child.stop(grace=60)
    with database().reading() as session:
        assert session.scalar(select(func.count()).select_from(CallError)) == 2


def test_a_call_that_outlasts_the_stop_is_written_as_lost(called: Called, tmp_path: Path) -> None:
    with longshore_calls(called, tmp_path, shutdown_seconds=1) as calls:
        begun = calls.begin()
        calls.child.stop(grace=60)
        assert calls.child.exit_status == 0
    cut_off = one_row(CallRequest, id=begun)
    assert cut_off.state == CallState.LOST
    assert cut_off.ended_at is not None
