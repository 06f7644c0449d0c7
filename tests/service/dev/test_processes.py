"""A started process ends with the block and with its parent; starting and stopping it are not interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from signal import Signals

import pytest

from dev.services.processes import ServiceFailedError, ending_on_sigterm, run_to_end, running, signals_deferred
from dev.services.workdir import services_directory
from tests.processes import has_ended
from tests.service.dev.helpers import eventually

ROOT = Path(__file__).resolve().parents[3]

# SIGINT may be ignored here, as a shell does for background processes.
PARENT = """
import signal, sys, time
from pathlib import Path
from dev.services.processes import ending_on_sigterm, running
signal.signal(signal.SIGINT, signal.default_int_handler)
with ending_on_sigterm(), running("sleep", ["sleep", "600"], log=Path(sys.argv[1]), ready=lambda: True) as child:
    print(child.pid, flush=True)
    time.sleep(600)
"""


def test_a_process_and_its_children_end_with_the_block(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & echo $! > {pids}.new; mv {pids}.new {pids}; wait; wait"
    with running("sh", ["sh", "-c", script], log=tmp_path / "log", ready=pids.exists, grace=0.2) as child:
        grandchild = int(pids.read_text())
        assert not has_ended(child.pid)
        assert not has_ended(grandchild)
    assert has_ended(child.pid)
    assert eventually(lambda: has_ended(grandchild))


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(ServiceFailedError, match="status 3:\nno luck"),
        running("sh", ["sh", "-c", "echo no luck; exit 3"], log=tmp_path / "log", ready=lambda: False),
    ):
        pytest.fail("it was never ready")
    with pytest.raises(ServiceFailedError, match="status 4"):
        run_to_end("sh", ["sh", "-c", "exit 4"], log=tmp_path / "log")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_dies_with_its_parent(tmp_path: Path, number: Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        child = int(parent.stdout.readline() if parent.stdout else "")
        assert not has_ended(child)
        parent.send_signal(number)
    assert eventually(lambda: has_ended(child))


def test_a_signal_waits_until_the_block_is_over() -> None:
    steps = []
    with ending_on_sigterm(), pytest.raises(SystemExit, match="143"):  # noqa: PT012 - the order is what is tested
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("finished")
        steps.append("not reached")
    assert steps == ["finished"]


def test_the_directory_of_a_crashed_run_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_DEV_DIR", str(tmp_path))
    abandoned = tmp_path / "longshore-services-abandoned"
    abandoned.mkdir()
    with services_directory() as first, services_directory() as second:
        assert not abandoned.exists()
        assert first.is_dir()
        assert second.is_dir()
    assert list(tmp_path.iterdir()) == []
