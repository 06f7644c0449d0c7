"""The ways in which sources were written for the platform: each is served, or says why not."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients import published_client_python
from tests.interpreters import VERSIONS, interpreters
from tests.unit.workers.runner.running import Runner

APPLY = """
def apply(input):
    if isinstance(input, bytes):
        return input[::-1]
    return input + "!" if isinstance(input, str) else {"input": input}
"""

LOAD = """
def load():
    return {"greeting": "hello "}

def apply(input, state):
    return state["greeting"] + input
"""


@pytest.fixture
def served(source: Path, start: Callable[..., Runner]) -> Callable[..., Runner]:
    """Starts the runner on this text of `src/Hello.py`."""

    def run(text: str, python: Path | None = None, **environment: str) -> Runner:
        (source / "src" / "Hello.py").write_text(text)
        return start(python, **environment)

    return run


def test_apply_alone_is_served_with_text_json_and_binary(served: Callable[..., Runner]) -> None:
    runner = served(APPLY)
    text = runner.call("hi").body
    assert (text["result"], text["metadata"]["content_type"]) == ("hi!", "text")
    assert runner.call(body=b"hi", content_type="text/plain").result == "hi!"
    value = runner.call([1]).body
    assert (value["result"], value["metadata"]["content_type"]) == ({"input": [1]}, "json")
    binary = runner.call(body=b"\x00\xff", content_type="application/octet-stream").body
    assert binary["result"] == base64.b64encode(b"\xff\x00").decode()
    assert binary["metadata"]["content_type"] == "binary"


def test_load_gives_apply_its_second_argument(served: Callable[..., Runner]) -> None:
    assert served(LOAD).call("world").result == "hello world"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_serves(source: Path, served: Callable[..., Runner], version: str) -> None:
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    (source / "src" / "helper.py").write_text(
        "import inspect\nwords = inspect.getargspec(lambda hello, there: 0).args\n"
    )
    runner = served("from .helper import words\n" + LOAD.replace('"hello "', 'words[0] + " "'), python)
    assert runner.call("world").result == "hello world"
    assert "concatenate" in runner.call(1).error["message"]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        # What load returns does not decide whether apply gets it, except that a default stands for nothing.
        ("def load():\n    return {}\ndef apply(input, state):\n    return [input, state]", [1, {}]),
        ("def load():\n    pass\ndef apply(input, state):\n    return [input, state]", [1, None]),
        ("def load():\n    pass\ndef apply(input, state=7):\n    return [input, state]", [1, 7]),
        (
            "seen = []\ndef load():\n    seen.append('loaded')\ndef apply(input):\n    return [input, seen]",
            [1, ["loaded"]],
        ),
        ("def apply(input, context=None):\n    return [input, context]", [1, None]),
        # A load of a library is not the algorithm's.
        ("from json import load\ndef apply(input):\n    return [input, load.__module__]", [1, "json"]),
        ("def load(path):\n    return path\ndef apply(input):\n    return load(input)", 1),
        ("class Model:\n    def apply(self, input):\n        return [input]\napply = Model().apply", [1]),
    ],
)
def test_what_load_and_apply_may_be(served: Callable[..., Runner], text: str, result: Any) -> None:
    assert served(text).call(1).result == result


def test_a_main_block_does_not_run(served: Callable[..., Runner]) -> None:
    text = APPLY + "\nif __name__ == '__main__':\n    raise SystemExit('main')\n"
    assert served(text).call("hi").result == "hi!"


def test_an_error_is_that_calls_alone_and_has_the_algorithms_frames(served: Callable[..., Runner]) -> None:
    runner = served("def apply(input):\n    if input:\n        raise KeyError(input)\n    return 'fine'")
    error = runner.call("lost").error
    assert (error["message"], error["error_type"]) == ("'lost'", "AlgorithmError")
    assert "src/Hello.py" in error["stacktrace"]
    assert "kit.py" not in error["stacktrace"]
    assert runner.call("").result == "fine"


def test_an_error_in_load_is_every_calls(served: Callable[..., Runner]) -> None:
    runner = served(LOAD.replace("return {", "raise OSError('no model'); return {"))
    for _ in range(2):
        error = runner.call("world").error
        assert (error["message"], error["error_type"]) == ("no model", "LoadingError")
        assert "in load" in error["stacktrace"]


def test_an_exit_in_apply_is_that_calls_error(served: Callable[..., Runner]) -> None:
    runner = served("import sys\ndef apply(input):\n    return input or sys.exit(3)")
    assert "ended with exit status 3 during the call" in runner.call(0).error["message"]
    assert runner.call(1).result == 1


OUTPUTS = [
    "import io, sys\nsys.stdout = io.StringIO()\n",
    "import sys\nsys.stdout.close()\n",
    "import os\nos.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n",
    "import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())\n",
]


@pytest.mark.parametrize("change", OUTPUTS, ids=["replaced", "closed", "redirected", "detached"])
def test_a_source_that_changes_its_output_is_served(served: Callable[..., Runner], change: str) -> None:
    assert served(change + APPLY).call("hi").result == "hi!"


def test_what_load_prints_belongs_to_no_call(served: Callable[..., Runner]) -> None:
    runner = served(
        "print('import')\ndef load():\n    print('load')\ndef apply(input):\n    print('call')\n    return 1"
    )
    assert runner.call(1, query="?stdout=true").body["metadata"]["stdout"] == "call\n"
    assert runner.out == "import\nload\ncall\n"


def test_a_logger_on_standard_output_is_the_calls_output(served: Callable[..., Runner]) -> None:
    text = (
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "def apply(input):\n    logging.warning('got %s', input)\n    return 1"
    )
    assert served(text).call(1, query="?stdout=true").body["metadata"]["stdout"] == "got 1\n"


def test_a_program_that_it_starts_cannot_read_the_requests(served: Callable[..., Runner]) -> None:
    text = (
        "import subprocess\ndef apply(input):\n"
        "    return subprocess.run(['cat'], stdout=subprocess.PIPE).stdout.decode() + input"
    )
    runner = served(text)
    assert [runner.call(text).result for text in ("a", "b")] == ["a", "b"]


def test_threads_of_a_module_that_started_the_kit_may_import_and_unpickle_it(served: Callable[..., Runner]) -> None:
    """The import of such a module never ends: a lock that was held meanwhile would stop them."""
    text = """
import importlib, pickle
from concurrent.futures import ThreadPoolExecutor
from Algorithmia import ADK

class Point:
    def __init__(self, value):
        self.value = value

def work(data):
    return pickle.loads(data).value + importlib.import_module("src.Hello").STEP

def apply(input):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, pickle.dumps(Point(input))).result()

STEP = 1
ADK(apply).init()
"""
    assert served(text, published_client_python()).call(1, query="?timeout=20").result == 2


KIT_FORMS = {
    "started": "{kit}\nADK(apply, load).init('Algorithmia')\n",
    "made": "{kit}\nalgorithm = ADK(apply, load)\nif __name__ == '__main__':\n    algorithm.init('Algorithmia')\n",
    "only in main": "{kit}\nif __name__ == '__main__':\n    ADK(apply, load).init('Algorithmia')\n",
    "handler": "import Algorithmia\nAlgorithmia.handler(apply, load).serve()\n",
    "handler made": "from Algorithmia import handler\nserver = handler(apply, load)\n",
    "main function": "{kit}\ndef main():\n    ADK(apply, load).init()\nmain()\n",
    "replaced output": "{kit}\nimport io, sys\nsys.stdout = io.StringIO()\nADK(apply, load).init()\n",
}
KIT_SOURCE = """
def load():
    print("loading")
    return {"greeting": "hello "}

def apply(input, state):
    if input == "raise":
        raise ValueError("not that")
    return input[::-1] if isinstance(input, bytes) else state["greeting"] + input

"""


@pytest.fixture(scope="session", params=["2.0.5", "1.2.1", "1.13.1"])
def client_python(request: pytest.FixtureRequest) -> Path:
    """The published client with the kit, one from before the kit, and one with a kit that decodes nothing."""
    return published_client_python(request.param)


@pytest.mark.parametrize("form", KIT_FORMS)
def test_every_form_of_start_serves(served: Callable[..., Runner], client_python: Path, form: str) -> None:
    text = KIT_SOURCE + KIT_FORMS[form].format(kit="from Algorithmia import ADK")
    runner = served(text, client_python)
    assert runner.call("world").result == "hello world"
    binary = runner.call(body=b"\x00\xff", content_type="application/octet-stream")
    assert binary.result == base64.b64encode(b"\xff\x00").decode()
    error = runner.call("raise").error
    assert (error["message"], error["error_type"]) == ("not that", "AlgorithmError")
    assert runner.call("world").result == "hello world"
    assert runner.out.count("loading\n") <= 1


@pytest.mark.parametrize("form", ["started", "handler made"])
def test_load_errors_of_every_kit_are_every_calls(
    served: Callable[..., Runner], client_python: Path, form: str
) -> None:
    text = KIT_SOURCE.replace("return {", "raise OSError('no model'); return {")
    runner = served(text + KIT_FORMS[form].format(kit="from Algorithmia import ADK"), client_python)
    for _ in range(2):
        error = runner.call("world").error
        assert (error["message"], error["error_type"]) == ("no model", "LoadingError")


def test_an_error_that_the_older_handler_reports_before_it_ends_is_every_calls(
    served: Callable[..., Runner], client_python: Path
) -> None:
    text = KIT_SOURCE.replace("return {", "raise OSError('no model'); return {")
    runner = served(text + KIT_FORMS["handler"], client_python)
    for _ in range(2):
        error = runner.call("world").error
        assert (error["message"], error["error_type"]) == ("no model", "LoadingError")
        assert "in load" in error["stacktrace"]


def test_a_model_manifest_comes_to_load(source: Path, served: Callable[..., Runner]) -> None:
    (source / "model_manifest.json").write_text(json.dumps({"required_files": [], "optional_files": []}))
    text = (
        "def load(manifest):\n    return {'found': manifest.available()}\n"
        "def apply(input, state):\n    return state['found']\n"
    )
    assert served(text, published_client_python()).call(1).result is True


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("def apply(input):\n    print input\n", "written for Python 2"),
        ("import urllib2\n", "written for Python 2"),
        ("limit = unicode(1)\n", "written for Python 2"),
        ("import nosuchlibrary.models\n", "requirements.txt"),
        ("import deeper\n", "The source has it as src/parts/deeper.py: import src.parts.deeper."),
        ("import src.nowhere\n", ""),
        ("raise ValueError('bad')\n", ""),
    ],
)
def test_an_import_that_fails_says_what_to_do(
    source: Path, served: Callable[..., Runner], text: str, hint: str
) -> None:
    (source / "src" / "parts").mkdir()
    (source / "src" / "parts" / "deeper.py").touch()
    error = served(text).call(1).error
    assert error["error_type"] == "LoadingError"
    reason, _, said = error["message"].partition(". ")
    assert reason in error["stacktrace"]
    assert hint in said if hint else not said


def test_an_error_type_that_is_none(served: Callable[..., Runner]) -> None:
    text = "class E(Exception):\n    error_type = None\n\ndef apply(input):\n    raise E('no')\n"
    error = served(text).call(1).error
    assert (error["message"], error["error_type"]) == ("no", "AlgorithmError")


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ("MODEL = load()\n\ndef apply(input):\n    return len(LOADS)\n", 1),
        ("if True:\n    MODEL = load()\n\ndef apply(input, model=None):\n    return len(LOADS)\n", 1),
        ("load()\n\ndef apply(input, model):\n    return len(LOADS)\n", 2),
        ("def apply(input):\n    return len(LOADS)\n\nif __name__ == '__main__':\n    load()\n", 1),
    ],
)
def test_load_is_not_repeated_for_a_module_that_calls_it(served: Callable[..., Runner], text: str, loads: int) -> None:
    runner = served("LOADS = []\n\ndef load():\n    LOADS.append(1)\n    return LOADS\n\n" + text)
    assert runner.call(1).result == loads
