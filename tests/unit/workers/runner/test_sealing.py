"""The socket's directory is closed to the algorithm before the algorithm begins."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.workers.runner.running import Runner

SAYS_WHAT_IT_MAY = """
from pathlib import Path

Path("began").touch()
serve(lambda request: os.access(request["data"], os.W_OK))
"""


@pytest.fixture
def bound_by_permissions(tmp_path: Path) -> str | Path:
    """A Python that cannot write where permissions say no, also where root runs the tests."""
    if os.geteuid() != 0:
        return sys.executable
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to be root without root's power over files")
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec setpriv --bounding-set=-dac_override {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def test_the_algorithm_begins_when_the_directory_is_sealed(
    algorithm: Callable[[str], Path], start: Callable[..., Runner], bound_by_permissions: str | Path
) -> None:
    algorithm(SAYS_WHAT_IT_MAY)
    runner = start(bound_by_permissions, LONGSHORE_SOCKET_SEALED="1")
    runner.socket.parent.chmod(0o555)
    assert runner.call(str(runner.socket.parent)).result is False
    runner.socket.parent.chmod(0o755)


def test_in_a_directory_that_stays_open_it_never_begins(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner], bound_by_permissions: str | Path
) -> None:
    algorithm(SAYS_WHAT_IT_MAY)
    runner = start(bound_by_permissions, LONGSHORE_SOCKET_SEALED="1")
    assert runner.process.wait(20) == 2
    assert runner.err == (
        f"longshore: LONGSHORE_SOCKET_SEALED is 1, and {runner.socket.parent} is still writable after 10 seconds; "
        "the algorithm was not started\n"
    )
    assert not (source / "began").exists()


def test_a_stop_ends_the_wait(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner], bound_by_permissions: str | Path
) -> None:
    algorithm(SAYS_WHAT_IT_MAY)
    assert start(bound_by_permissions, LONGSHORE_SOCKET_SEALED="1").stop() == 0
    assert not (source / "began").exists()
