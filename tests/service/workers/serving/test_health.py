"""Read the health of a runner that may send anything, without an engine."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from shared.instances.endpoints import endpoint_of
from shared.settings import settings
from workers.serving.health import Health, read_health

pytestmark = pytest.mark.usefixtures("sqlite_installation")

HEAD = b"HTTP/1.0 200 OK\r\n\r\n"


@contextmanager
def answering(*pieces: bytes, pause: float = 0) -> Iterator[None]:
    """An instance with the id `it`, which sends these pieces with a pause before each."""
    directory = settings().resolved_serving_dir / "it"
    directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                for piece in pieces:
                    threading.Event().wait(pause)
                    connection.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


def test_a_runner_is_understood() -> None:
    with answering(HEAD, b'{"status": "ready", "calls": 0, "idle_seconds": 2.5}'):
        assert read_health(endpoint_of("it")) == Health(loaded=True, calls=0, idle_seconds=2.5)


@pytest.mark.parametrize("number", ["1" + 400 * "0", "NaN", "Infinity", "-1.0", '"1"', "null"])
def test_a_number_that_is_none_is_not_believed(number: str) -> None:
    with answering(HEAD, f'{{"calls": 0, "idle_seconds": {number}}}'.encode()):
        assert read_health(endpoint_of("it")) == Health(loaded=True, calls=0, idle_seconds=None)


def test_who_answers_drop_by_drop_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.serving.health.TIMEOUT_SECONDS", 0.2)
    drops = [bytes([byte]) for byte in HEAD + b'{"calls": 0, "idle_seconds": 2.5}']
    with answering(*drops, pause=0.05):
        assert read_health(endpoint_of("it")) is None
