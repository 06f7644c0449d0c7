"""The manager starts a service once, reports errors, and stops everything when the run's first process ends."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services import manager
from dev.services.processes import port_answers
from tests.service.dev.helpers import eventually

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run() -> Iterator[subprocess.Popen[bytes]]:
    """A process in the place of the first one of a test run."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def address(run: subprocess.Popen[bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        address = Path(directory) / manager.ADDRESS
        with subprocess.Popen(
            [sys.executable, "-m", "dev.services.manager", directory, str(run.pid)], cwd=ROOT, stderr=subprocess.DEVNULL
        ) as process:
            assert eventually(address.exists)
            yield address
            run.kill()
            process.wait(30)


def test_a_service_is_started_once_and_ends_with_the_run(run: subprocess.Popen[bytes], address: Path) -> None:
    port = manager.request_service(address, "redis", seconds=30)["port"]
    assert port_answers(port)
    assert manager.request_service(address, "redis", seconds=30)["port"] == port
    run.kill()
    assert eventually(lambda: not port_answers(port))
    assert eventually(lambda: not address.parent.exists())


def test_stopping_waits_until_everything_is_stopped(address: Path) -> None:
    port = manager.request_service(address, "registry", seconds=30)["host"].partition(":")[2]
    manager.stop(address, seconds=30)
    assert not port_answers(int(port))


def test_an_unknown_service_is_an_error(address: Path) -> None:
    with pytest.raises(RuntimeError, match="no service 'teapot'"):
        manager.request_service(address, "teapot", seconds=30)
