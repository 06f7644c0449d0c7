"""How the runner ends, and how it refuses to begin."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.unit.workers.runner.running import PIPE, UnixConnection

WAITING = """
def apply(request):
    print(os.getpid())
    wait_at("gate")
    return request["data"]

serve(apply)
"""


def test_the_running_call_finishes_and_the_queued_one_is_refused(algorithm, source, start):
    algorithm(WAITING)
    os.mkfifo(source / "gate")
    runner = start()
    with ThreadPoolExecutor(2) as callers:
        running = callers.submit(runner.call, "first")
        runner.until(lambda: "\n" in runner.out)
        before = sockets_of(runner)
        queued = callers.submit(runner.call, "second")
        runner.until(lambda: sockets_of(runner) > before)
        runner.process.send_signal(signal.SIGTERM)
        assert queued.result().status == 503
        with pytest.raises(OSError, match="Connection refused"):
            runner.call("third")
        with (source / "gate").open("w"):
            pass
        assert running.result().result == "first"
    assert runner.process.wait(20) == 0
    assert not os.path.exists(f"/proc/{runner.out.strip()}")
    assert not runner.socket.exists()
    assert not PIPE.exists()


def connections_to(path):
    """Established connections to the runner's socket, also those that it has not accepted yet."""
    with open("/proc/net/unix") as table:
        lines = [line.split() for line in table]
    return sum(line[-1] == str(path) and line[5] == "03" for line in lines)


def sockets_of(runner):
    """Sockets that the runner has open: one more for each connection that it accepted, none for one that waits."""
    directory = f"/proc/{runner.process.pid}/fd"
    links = []
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):  # closed just now
            links.append(os.readlink(f"{directory}/{name}"))
    return sum(link.startswith("socket:") for link in links)


def test_an_interrupt_ends_it_too_even_while_loading(algorithm, source, start):
    os.mkfifo(source / "gate")
    algorithm("wait_at('gate')")
    runner = start()
    runner.until(lambda: connections_to(runner.socket) == 0)
    before = sockets_of(runner)
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(runner.call, 1)
        runner.until(lambda: sockets_of(runner) > before)
        runner.process.send_signal(signal.SIGINT)
        assert waiting.result().status == 503
    assert runner.process.wait(20) == 0


def test_a_caller_who_is_connected_already_is_told_too(algorithm, start):
    algorithm("serve(lambda request: 1)")
    runner = start()
    runner.until_loaded()
    before = sockets_of(runner)
    connection = UnixConnection(runner.socket)
    connection.connect()
    runner.until(lambda: sockets_of(runner) > before)
    runner.process.send_signal(signal.SIGTERM)
    runner.until(lambda: not runner.listens())
    connection.request("POST", "/", b"1", {"Content-Type": "application/json"})
    assert connection.getresponse().status == 503
    connection.close()
    assert runner.process.wait(20) == 0


def test_a_taken_port_is_an_error_at_start(algorithm, start):
    algorithm("serve(lambda request: 1)")
    with socket.create_server(("", 0)) as taken:
        runner = start(LONGSHORE_PORT=str(taken.getsockname()[1]))
        assert runner.process.wait(20) == 2
    assert "cannot listen" in runner.err


def test_a_wrong_setting_is_an_error_at_start(algorithm, start):
    runner = start(LONGSHORE_PORT="http")
    assert runner.process.wait(20) == 2
    assert runner.err == "longshore: LONGSHORE_PORT must be a whole number up to 65535, not 'http'.\n"
