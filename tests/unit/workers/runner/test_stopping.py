"""How the runner ends, and how it refuses to begin."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.unit.workers.runner.running import PIPE, Runner, UnixConnection

WAITING = """
def apply(request):
    print(os.getpid())
    wait_at("gate")
    return request["data"]

serve(apply)
"""


@contextmanager
def connected(runner: Runner) -> Iterator[UnixConnection]:
    """A connection whose request is still to be sent; the runner may or may not have accepted it yet."""
    connection = UnixConnection(runner.socket)
    connection.connect()
    try:
        yield connection
    finally:
        connection.close()


def post(connection: UnixConnection) -> None:
    connection.request("POST", "/", b"1", {"Content-Type": "application/json"})


def test_the_running_call_finishes_and_the_queued_one_is_refused(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner]
) -> None:
    algorithm(WAITING)
    os.mkfifo(source / "gate")
    runner = start()
    with ThreadPoolExecutor(1) as caller:
        running = caller.submit(runner.call, "first")
        runner.until(lambda: "\n" in runner.out)
        with connected(runner) as queued:
            post(queued)
            runner.process.send_signal(signal.SIGTERM)
            assert queued.getresponse().status == 503
        runner.until(lambda: not runner.listens())
        with (source / "gate").open("w"):
            pass
        assert running.result().result == "first"
    assert runner.process.wait(20) == 0
    assert not os.path.exists(f"/proc/{runner.out.strip()}")
    assert not runner.socket.exists()
    assert not PIPE.exists()


def test_an_interrupt_ends_it_too_even_while_loading(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner]
) -> None:
    os.mkfifo(source / "gate")
    algorithm("wait_at('gate')")
    runner = start()
    with connected(runner) as waiting:
        post(waiting)
        runner.process.send_signal(signal.SIGINT)
        assert waiting.getresponse().status == 503
    assert runner.process.wait(20) == 0


def test_a_request_sent_after_the_stop_on_an_earlier_connection_is_answered_too(
    algorithm: Callable[[str], Path], start: Callable[..., Runner]
) -> None:
    algorithm("serve(lambda request: 1)")
    runner = start()
    with connected(runner) as late:
        runner.process.send_signal(signal.SIGTERM)
        runner.until(lambda: not runner.listens())
        post(late)
        assert late.getresponse().status == 503
    assert runner.process.wait(20) == 0


def test_a_taken_port_is_an_error_at_start(algorithm: Callable[[str], Path], start: Callable[..., Runner]) -> None:
    algorithm("serve(lambda request: 1)")
    with socket.create_server(("", 0)) as taken:
        runner = start(LONGSHORE_PORT=str(taken.getsockname()[1]))
        assert runner.process.wait(20) == 2
    assert "cannot listen" in runner.err


def test_a_wrong_setting_is_an_error_at_start(start: Callable[..., Runner]) -> None:
    runner = start(LONGSHORE_PORT="http")
    assert runner.process.wait(20) == 2
    assert runner.err == "longshore: LONGSHORE_PORT must be a whole number up to 65535, not 'http'.\n"
