"""The output of the algorithm's process, its ends and restarts, and the responses to its callers."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import has_ended
from tests.unit.workers.runner.running import PIPE, Runner

MOODS = """
import time

def apply(request):
    mood = request["data"]
    if mood == "print":
        print("one\\ntwo")
    elif mood == "print a lot":
        print("x" * 3_000_000)
    elif mood == "exit":
        print("on standard error", file=sys.stderr)
        sys.exit(3)
    elif mood == "kill":
        os.kill(os.getpid(), 9)
    elif mood == "hang":
        print("hanging")
        wait_at("gate")
    elif mood == "pid":
        return os.getpid()
    elif mood == "nan":
        return float("nan")
    elif mood == "environment":
        return dict(os.environ)
    elif mood == "nonsense":
        with open("/tmp/algoout", "w") as pipe:
            pipe.write("this is no JSON\\n")
    return mood

serve(apply)
"""


@pytest.fixture
def moods(algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner]) -> Runner:
    algorithm(MOODS)
    os.mkfifo(source / "gate")
    return start()


def open_gate(source: Path) -> None:
    with (source / "gate").open("w"):
        pass


def test_a_call_gets_what_it_printed_and_the_container_too(moods: Runner) -> None:
    assert moods.call("print", query="?stdout=true").body["metadata"]["stdout"] == "one\ntwo\n"
    assert moods.call("calm", query="?stdout=TRUE").body["metadata"]["stdout"] == ""
    assert "stdout" not in moods.call("print").body["metadata"]
    assert moods.out == "one\ntwo\n" * 2


def test_printing_a_lot_is_cut_and_says_so(moods: Runner) -> None:
    stdout = moods.call("print a lot", query="?stdout=true").body["metadata"]["stdout"]
    assert stdout == "x" * 1024 * 1024 + "\n[cut off after 1048576 bytes]\n"
    assert len(moods.out) == 3_000_001


@pytest.mark.parametrize(
    ("mood", "message"),
    [("exit", "ended with exit status 3 during the call"), ("kill", "was ended by signal SIGKILL during the call")],
)
def test_a_death_during_a_call_is_that_calls_error_alone(moods: Runner, mood: str, message: str) -> None:
    first = moods.call("pid").result
    error = moods.call(mood).error
    assert message in error["message"]
    assert error["error_type"] == "AlgorithmError"
    assert error["stacktrace"] == error["stack_trace"] == ("on standard error\n" if mood == "exit" else "")
    second = moods.call("pid").result
    assert second != first
    assert moods.call("pid").result == second


def test_a_death_between_calls_fails_no_call(moods: Runner) -> None:
    first = moods.call("pid").result
    os.kill(first, signal.SIGKILL)
    moods.until(lambda: not os.path.exists(f"/proc/{first}"))
    assert moods.call("pid").result != first
    assert "SIGKILL between two calls" in moods.err


DEAF_AT_FIRST = """
from pathlib import Path

if Path("restarted").exists():
    serve(lambda request: request["data"])
Path("restarted").touch()
sys.stdin.close()
print("PIPE_INIT_COMPLETE", flush=True)
wait_at("gate")
os._exit(0)
"""
"""Has loaded and reads no request the first time: as a process whose end the runner has not noticed yet."""


def test_a_call_that_never_reached_the_dead_process_goes_to_the_next_one(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner]
) -> None:
    algorithm(DEAF_AT_FIRST)
    os.mkfifo(source / "gate")
    runner = start()
    runner.until_loaded()
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(runner.call, "calm")
        runner.until(lambda: runner.health().body["calls"] == 1)
        open_gate(source)
        assert call.result().result == "calm"
    assert "ended with exit status 0 between two calls; it is restarted" in runner.err


def test_a_call_that_takes_too_long_is_killed_and_the_next_works(moods: Runner) -> None:
    first = moods.call("pid").result
    error = moods.call("hang", query="?timeout=0.2").error
    assert "within the timeout of 0.2 seconds" in error["message"]
    assert error["error_type"] == "TimeoutError"
    assert not os.path.exists(f"/proc/{first}")
    assert moods.call("pid").result != first


def test_calls_wait_for_their_turn_within_their_timeout(moods: Runner, source: Path) -> None:
    with ThreadPoolExecutor(2) as callers:
        pid = moods.call("pid").result
        hanging = callers.submit(moods.call, "hang")
        moods.until(lambda: "hanging" in moods.out)
        late = moods.call("calm", query="?timeout=0.1")
        patient = callers.submit(moods.call, "pid")
        open_gate(source)
        assert "Earlier calls were still running" in late.error["message"]
        assert late.error["error_type"] == "TimeoutError"
        assert hanging.result().result == "hang"
        assert patient.result().result == pid


def test_a_result_that_is_no_json_is_an_error(moods: Runner) -> None:
    assert "NaN" in moods.call("nan").error["message"]
    assert moods.call("calm").result == "calm"


def test_an_answer_in_another_form_is_an_error(moods: Runner) -> None:
    assert "does not have the development kit's form" in moods.call("nonsense").error["message"]


def test_the_environment_is_the_containers_without_ours(
    algorithm: Callable[[str], Path], start: Callable[..., Runner]
) -> None:
    algorithm(MOODS)
    environment = start(MODEL="large", HOME="/nonexistent").call("environment").result
    assert environment["MODEL"] == "large"
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert environment["HOME"] == "/tmp"
    assert not [name for name in environment if name.startswith("LONGSHORE_")]


@pytest.mark.usefixtures("one_runner")
def test_a_stale_file_at_the_pipes_path_does_no_harm(
    algorithm: Callable[[str], Path], start: Callable[..., Runner]
) -> None:
    algorithm(MOODS)
    PIPE.unlink(missing_ok=True)
    PIPE.write_text("a stale answer\n")
    assert start().call("calm").result == "calm"


@pytest.mark.usefixtures("one_runner")
def test_a_directory_at_the_pipes_path_is_a_loading_error(
    algorithm: Callable[[str], Path], start: Callable[..., Runner]
) -> None:
    algorithm(MOODS)
    PIPE.unlink(missing_ok=True)
    PIPE.mkdir()
    try:
        error = start().call("calm").error
    finally:
        PIPE.rmdir()
    assert error["error_type"] == "LoadingError"
    assert str(PIPE) in error["message"]


def test_readiness_follows_loading_and_calls_wait_for_it(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner]
) -> None:
    os.mkfifo(source / "gate")
    algorithm("wait_at('gate')\nprint('loaded')\nserve(lambda request: request['data'])")
    runner = start()
    assert (runner.health().status, runner.health().body["status"]) == (503, "loading")
    assert "still loading when the timeout of 0.1 seconds" in runner.call(1, query="?timeout=0.1").error["message"]
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(runner.call, 1)
        open_gate(source)
        assert waiting.result().result == 1
    assert (runner.health().status, runner.health().body["status"]) == (200, "ready")
    assert runner.out == "loaded\n"


@pytest.mark.parametrize(
    ("text", "message", "stacktrace"),
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'", "Hello.py"),
        ("def broken(:", "SyntaxError: invalid syntax", "Hello.py"),
        ("sys.exit('no model')", "no model", "no model"),
        ("os.kill(os.getpid(), 9)", "The algorithm's process was ended by signal SIGKILL while it was loading.", ""),
        ("os._exit(4)", "The algorithm's process ended with exit status 4 while it was loading.", ""),
        ("os._exit(0)", "The algorithm's process ended while it was loading, without an error.", ""),
        ("sys.exit()", "The module src.Hello ended its process while it was imported, with sys.exit or exit", ""),
        ("print('done')", "The module src.Hello has no function apply and does not start the development kit.", ""),
    ],
)
def test_a_death_while_loading_is_every_calls_error(
    algorithm: Callable[[str], Path], start: Callable[..., Runner], text: str, message: str, stacktrace: str
) -> None:
    algorithm(text)
    runner = start()
    for _ in range(2):
        error = runner.call(1).error
        assert error["message"].startswith(message)
        assert error["error_type"] == "LoadingError"
        assert stacktrace in error["stacktrace"]
        assert "boot.py" not in error["stacktrace"]
        assert error["stacktrace"] == error["stack_trace"]
    health = runner.health()
    assert health.status == 200
    assert health.body["load_error"].startswith(message)


def test_a_missing_script_is_named_with_what_is_there(source: Path, start: Callable[..., Runner]) -> None:
    (source / "src" / "hello.py").touch()
    error = start().call(1).error
    assert "no src/Hello.py" in error["message"]
    assert "hello.py" in error["message"].split("In src there is:")[1]
    assert error["error_type"] == "LoadingError"


def test_children_of_a_killed_process_go_with_it(
    algorithm: Callable[[str], Path], source: Path, start: Callable[..., Runner]
) -> None:
    algorithm(
        "import subprocess\n"
        "def apply(request):\n"
        "    child = subprocess.Popen(['sleep', '1000'])\n"
        "    open('child', 'w').write(str(child.pid))\n"
        "    child.wait()\n"
        "serve(apply)"
    )
    runner = start()
    assert "within the timeout" in runner.call(1, query="?timeout=1").error["message"]
    child = int((source / "child").read_text())
    runner.until(lambda: has_ended(child))
