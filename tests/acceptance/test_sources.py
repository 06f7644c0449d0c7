"""Sources in the styles of public algorithm repositories, each built and called as it is (`sources/`).

Each directory of `sources/` has a `source/` and an `expected.json`:

- `about`: what is special; `algorithm`: the name that the algorithm gets.
- `build`: `failed` where it cannot be built; `log` are texts that are then in the last line of its log.
- `load_check`: its state, `passed` unless given.
- `calls`: `input` (JSON; a string is sent as text) or `input_base64` (bytes), with `result` or `result_base64` and
  `content_type`, or the text that is in the `error`, and its `error_type`; `query` and `stdout`.
- `environments`: those that it is for, if it is not for the default one (`test_old_environments.py`); `fails_in`: the
  texts in the last line of the log of its failed build, by environment.
"""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.system import HttpResponse, System, repository

SOURCES = Path(__file__).parent / "sources"
ALL = {path.parent.name: json.loads(path.read_text()) for path in sorted(SOURCES.glob("*/expected.json"))}
CONCURRENT_CHECKS = 4
LOAD_CHECK_SECONDS = 240


@pytest.fixture(scope="module")
def checks(
    request: pytest.FixtureRequest, registryless: System, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[None]"]]:
    """The checks of all sources that are tested in this run, some at a time: each mostly waits for workers."""
    key = registryless.owner_key("python3")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    tested = [item for item in items if item.originalname == test_a_source_as_it_is.__name__]
    names = [str(item.callspec.params["name"]) for item in tested]
    with ThreadPoolExecutor(CONCURRENT_CHECKS) as pool:
        directory = tmp_path_factory.mktemp("clones")
        yield {name: pool.submit(check_source, registryless, name, key, directory / name, "python3") for name in names}


@pytest.mark.parametrize("name", [name for name, expected in ALL.items() if "environments" not in expected])
def test_a_source_as_it_is(name: str, checks: dict[str, "Future[None]"]) -> None:
    checks[name].result()


def check_source(system: System, name: str, key: str, directory: Path, environment: str) -> None:
    """Create an algorithm, push a source to it, compile it, and call it as `expected.json` says."""
    expected = ALL[name]
    if environment in expected.get("fails_in", {}):
        expected = {**expected, "build": "failed", "log": expected["fails_in"][environment], "calls": []}
    algorithm = f"{environment}/{expected['algorithm']}"  # one owner for each environment
    body = {"name": expected["algorithm"], "details": {"label": name}, "settings": {"language": environment}}
    made = system.call("POST", f"/v1/algorithms/{environment}", body, key=key)
    assert made.status == 201, made.text
    clone = repository(system, directory, algorithm, key)
    clone.write({str(path.relative_to(SOURCES / name / "source")): path.read_text() for path in files_of(name)})
    commit = clone.commit()
    clone.push()
    build, log = compiled(system, algorithm, key)
    assert build["status"] == expected.get("build", "succeeded"), log
    for text in expected.get("log", ()):
        assert text in log.strip().splitlines()[-1], log[-3000:]
    for call in expected.get("calls", ()):
        check_call(called(system, f"{algorithm}/{commit}", call, key), call)
    if build["status"] == "succeeded":
        load_check = wait_for_load_check(system, algorithm, build["build_id"], key)
        assert load_check["state"] == expected.get("load_check", "passed"), load_check
    assert system.call("DELETE", f"/v1/algorithms/{algorithm}", key=key).status == 204


def files_of(name: str) -> list[Path]:
    found = (SOURCES / name / "source").rglob("*")
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def compiled(system: System, algorithm: str, key: str) -> tuple[dict[str, Any], str]:
    """Compile the newest commit; return the ended build and its log."""
    answer = system.call("POST", f"/v1/algorithms/{algorithm}/compile", {}, key=key, wait=60)
    assert answer.status == 200, answer.text
    system.wait_for_job(answer.headers["X-Job-Id"])
    return read_build(system, algorithm, answer.json["build"]["build_id"], key)


def read_build(system: System, algorithm: str, build_id: str, key: str) -> tuple[dict[str, Any], str]:
    path = f"/v1/algorithms/{algorithm}/builds/{build_id}"
    build: dict[str, Any] = system.call("GET", path, key=key).json
    return build, str(system.call("GET", f"{path}/logs", key=key).json["logs"])


def wait_for_load_check(system: System, algorithm: str, build_id: str, key: str) -> dict[str, Any]:
    """Return the result of the load check, which comes after the build has succeeded."""
    deadline = time.monotonic() + LOAD_CHECK_SECONDS
    while True:
        build, _log = read_build(system, algorithm, build_id, key)
        if build.get("load_check") or time.monotonic() > deadline:
            result: dict[str, Any] = build["load_check"]
            return result
        time.sleep(0.2)


def called(system: System, path: str, call: dict[str, Any], key: str) -> dict[str, Any]:
    """Send a call as a published client does: text as text, bytes as bytes, all else as JSON."""
    if "input_base64" in call:
        body, content_type = base64.b64decode(call["input_base64"]), "application/octet-stream"
    elif isinstance(call["input"], str):
        body, content_type = call["input"].encode(), "text/plain"
    else:
        body, content_type = json.dumps(call["input"]).encode(), "application/json"
    answer: HttpResponse = system.send(
        "POST", f"/v1/algo/{path}{call.get('query', '')}", body, content_type=content_type, key=key
    )
    assert answer.status == 200, answer.text
    response: dict[str, Any] = answer.json
    return response


def check_call(response: dict[str, Any], call: dict[str, Any]) -> None:
    if "error" in call:
        assert call["error"] in response["error"]["message"], response
        assert response["error"]["error_type"] == call.get("error_type", response["error"]["error_type"])
        return
    assert response.get("result") == call.get("result", call.get("result_base64")), response
    assert response["metadata"]["content_type"] == call["content_type"]
    if "stdout" in call:
        assert response["metadata"]["stdout"] == call["stdout"]
