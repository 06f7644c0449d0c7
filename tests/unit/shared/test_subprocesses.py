"""Child processes: bounded in time and in what is kept of their output, and ended with their own children."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.errors import WorkCancelledError
from shared.subprocesses import MAX_MESSAGE_BYTES, Subprocess, SubprocessTimeoutError, running
from tests.processes import has_ended, survivors_of_group

# Prints the process id of a child of its own, which outlives it, and then waits.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session={new_session})
print(child.pid, flush=True)
time.sleep({seconds})
"""


def python(source: str, timeout: float = 60, **options: Any) -> Subprocess:
    return Subprocess([sys.executable, "-c", source], environment={}, timeout=timeout, **options)


def test_nothing_is_inherited_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_SECRET_KEYS", "leak")
    with running(python("import os; print(sorted(os.environ))")) as process:
        assert b"LONGSHORE" not in process.stdout.read()


def test_input_goes_in_and_output_and_messages_come_out() -> None:
    source = "import sys; print(sys.stdin.read()); print('beside', file=sys.stderr); sys.exit(3)"
    with running(python(source, has_input=True)) as process:
        process.stdin.write(b"hello")
        process.stdin.close()
        assert process.stdout.read() == b"hello\n"
        assert process.wait() == 3
        assert process.messages == "beside"


@pytest.mark.parametrize("merge_output", [False, True])
def test_only_the_end_of_the_messages_is_kept(merge_output: bool) -> None:
    source = f"import sys; print('x' * 1_000_000 + 'end', file=sys.{'stdout' if merge_output else 'stderr'})"
    with running(python(source, merge_output=merge_output)) as process:
        assert process.wait() == 0
        assert len(process.messages) <= MAX_MESSAGE_BYTES
        assert process.messages.endswith("xend")


def test_a_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Subprocess([str(tmp_path / "missing")], environment={}, timeout=60)


def test_the_deadline_kills_the_whole_group() -> None:
    process = python(PARENT.format(new_session=False, seconds=600), timeout=1)
    with pytest.raises(SubprocessTimeoutError), running(process):
        process.stdout.read()
    assert process.wait() == -signal.SIGKILL
    assert survivors_of_group(process.pid) == []


def test_an_error_after_the_deadline_is_a_timeout() -> None:
    process = python("import time; time.sleep(600)", timeout=0)
    process.wait()
    with pytest.raises(SubprocessTimeoutError), running(process):
        int("")


def test_cancelling_kills_the_whole_group() -> None:
    stop = CancelToken()
    process = python(PARENT.format(new_session=False, seconds=600))
    process.stdout.readline()
    canceller = threading.Timer(0.1, stop.cancel, ["superseded"])
    canceller.start()
    with pytest.raises(WorkCancelledError, match="superseded"), running(process, stop):
        process.stdout.read()
    canceller.join()
    assert survivors_of_group(process.pid) == []


def test_a_process_that_ends_leaves_no_child_in_its_group() -> None:
    with running(python(PARENT.format(new_session=False, seconds=0))) as process:
        assert process.wait() == 0
        assert survivors_of_group(process.pid) == []


def test_a_child_that_left_the_group_and_holds_the_pipe_is_not_waited_for() -> None:
    with running(python(PARENT.format(new_session=True, seconds=0), merge_output=True)) as process:
        began = time.monotonic()
        assert process.wait() == 0
        assert time.monotonic() - began < 30
        child = int(process.messages)
        assert not has_ended(child)
        os.kill(child, signal.SIGKILL)


def test_a_gentle_end_lets_it_remove_its_files(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    process = python(
        f"""
import pathlib, signal, sys, time
lock = pathlib.Path({str(lock)!r})
signal.signal(signal.SIGTERM, lambda *_: (lock.unlink(), sys.exit()))
lock.touch()
print("ready", flush=True)
time.sleep(600)
"""
    )
    process.stdout.readline()
    process.end(gently=True)
    assert process.wait() == 0
    assert not lock.exists()
    process.kill()  # does nothing any more


def test_a_second_end_does_nothing() -> None:
    process = python("")
    process.end()
    process.end(gently=True)
    assert not Path(f"/proc/{process.pid}").exists()
