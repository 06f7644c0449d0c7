"""Source written for the platform's development kit, under the published kit itself."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients import published_client_python
from tests.unit.workers.runner.running import Runner

SOURCE = """
import Algorithmia
from Algorithmia import ADK

client = Algorithmia.client()

class Refusal(Exception):
    error_type = "Refused"

def apply(input, state):
    if input == "raise":
        raise ValueError("input must not be that")
    if input == "refuse":
        raise Refusal("no")
    if isinstance(input, bytes):
        return input[::-1]
    if isinstance(input, str):
        return state["greeting"] + input
    return {"input": input}

def load():
    return {"greeting": "hello "}

ADK(apply, load).init("Algorithmia")
"""


@pytest.fixture(scope="session")
def kit_python() -> Path:
    return published_client_python()


def test_apply_and_load(source: Path, start: Callable[..., Runner], kit_python: Path) -> None:
    (source / "src" / "Hello.py").write_text(SOURCE)
    runner = start(kit_python)
    assert runner.call("world").body["metadata"]["content_type"] == "text"
    assert runner.call("world").result == "hello world"
    assert runner.call([1]).result == {"input": [1]}
    assert runner.call([1]).body["metadata"]["content_type"] == "json"
    assert runner.call(body=b"world", content_type="text/plain").result == "hello world"
    binary = runner.call(body=b"\x00\xff\n", content_type="application/octet-stream")
    assert binary.result == base64.b64encode(b"\n\xff\x00").decode()
    assert binary.body["metadata"]["content_type"] == "binary"


def test_an_exception_is_that_calls_error_and_the_process_survives(
    source: Path, start: Callable[..., Runner], kit_python: Path
) -> None:
    (source / "src" / "Hello.py").write_text(SOURCE)
    runner = start(kit_python)
    for _ in range(2):
        error = runner.call("raise").error
        assert error["message"] == "input must not be that"
        assert error["error_type"] == "AlgorithmError"
        assert "src/Hello.py" in error["stacktrace"]
        assert error["stack_trace"] == error["stacktrace"]
    assert runner.call("refuse").error["error_type"] == "Refused"
    assert runner.call("world").result == "hello world"
    assert "restarted" not in runner.err


def test_a_load_error_is_every_calls_error(source: Path, start: Callable[..., Runner], kit_python: Path) -> None:
    text = SOURCE.replace('return {"greeting"', 'raise OSError("no model"); return {"greeting"')
    (source / "src" / "Hello.py").write_text(text)
    runner = start(kit_python)
    for _ in range(2):
        error = runner.call("world").error
        assert (error["message"], error["error_type"]) == ("no model", "LoadingError")
        assert "in load" in error["stacktrace"]


def test_a_result_that_is_no_json_is_the_kits_error(
    source: Path, start: Callable[..., Runner], kit_python: Path
) -> None:
    (source / "src" / "Hello.py").write_text("from Algorithmia import ADK\nADK(lambda input: {1, 2}).init()\n")
    error = start(kit_python).call(1).error
    assert "not JSON serializable" in error["message"]


def test_what_a_call_printed_is_its_own(source: Path, start: Callable[..., Runner], kit_python: Path) -> None:
    text = (
        "from Algorithmia import ADK\n\ndef apply(input):\n    print('got', input)\n    return 1\n\nADK(apply).init()\n"
    )
    (source / "src" / "Hello.py").write_text(text)
    runner = start(kit_python)
    printed = [runner.call(number, query="?stdout=true").body["metadata"]["stdout"] for number in (1, 2)]
    assert printed == ["got 1\n", "got 2\n"]
    assert runner.out == "got 1\ngot 2\n"
