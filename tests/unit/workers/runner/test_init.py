"""The runner as a container's process 1, in a process namespace of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.workers.runner.running import Runner

ORPHANS = """
import subprocess

def apply(request):
    if request["data"] == "orphan":
        # In a session of its own it outlives its parent, until the gate is opened: then process 1 has to reap it.
        subprocess.run(["setsid", "sh", "-c", "cat gate > /dev/null 2>&1 &"])
    return [name for pid in os.listdir("/proc") if pid.isdigit() for name in names_of(pid)]

def names_of(pid):
    try:
        return [open("/proc/" + pid + "/comm").read().strip()]
    except OSError:  # it has ended since it was listed
        return []

serve(apply)
"""

NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture
def python_as_process_one(tmp_path: Path) -> Path:
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], check=False).returncode != 0:
        pytest.skip("needs user and process namespaces")
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(NAMESPACE)} {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def test_orphans_are_reaped(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner], python_as_process_one: Path
) -> None:
    algorithm(ORPHANS)
    os.mkfifo(source / "gate")
    runner = start(python_as_process_one)
    assert len(runner.call("orphan").result) == 4  # process 1, the runner, the algorithm, the orphan
    with (source / "gate").open("w"):
        pass
    runner.until(lambda: len(runner.call("count").result) == 3)


def test_signals_reach_the_runner_and_its_status_is_passed_on(
    algorithm: Callable[[str], Path], start: Callable[..., Runner], python_as_process_one: Path
) -> None:
    algorithm("serve(lambda request: 1)")
    runner = start(python_as_process_one)
    assert runner.call().result == 1
    assert runner.stop() == 0
    assert not runner.socket.exists()


def test_a_failed_start_is_passed_on(
    algorithm: Callable[[str], Path], start: Callable[..., Runner], python_as_process_one: Path, one_runner: Path
) -> None:
    algorithm("serve(lambda request: 1)")
    (one_runner / "socket").write_text("")
    assert start(python_as_process_one).process.wait(20) == 2
