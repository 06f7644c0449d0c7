"""A build says whether its algorithm can be imported, and waits for that no more than its push does."""

import time
from pathlib import Path
from typing import Any

from tests.acceptance.system import System, repository

PATIENCE_SECONDS = 240


def checked_build(system: System, algorithm: str, build_id: str, key: str) -> dict[str, Any]:
    """Return the build when its load check has a verdict."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        build: dict[str, Any] = system.call("GET", f"/v1/algorithms/{algorithm}/builds/{build_id}", key=key).json
        if "load_check" in build:
            return build
        assert time.monotonic() < deadline, build
        time.sleep(0.2)


def test_what_cannot_be_imported_is_built_and_pushed_and_says_so_in_build_log_and_calls(
    system: System, owner: str, owner_key: str, registry_id: str, tmp_path: Path
) -> None:
    algorithm = f"{owner}/Broken"
    system.create_algorithm(owner, "Broken")
    source = repository(system, tmp_path / "clone", algorithm, owner_key)
    source.write({"src/entry.py": "import nothing_like_it\n\ndef apply(input):\n    return input\n"})
    commit = source.commit()
    source.push("-o", "nocompile")
    build = system.compile(algorithm, commit, {"registry_id": registry_id}).json["build"]
    assert build["status"] == "succeeded"
    assert [push["status"] for push in system.statuses(algorithm, commit)] == ["succeeded"]
    check = checked_build(system, algorithm, build["build_id"], owner_key)["load_check"]
    assert check["state"] == "failed"
    assert check["traceback"].endswith("ModuleNotFoundError: No module named 'nothing_like_it'")
    logs = system.call("GET", f"/v1/algorithms/{algorithm}/builds/{build['build_id']}/logs", key=owner_key).json
    assert "The algorithm's module is src/entry.py, the only one that has apply." in logs["logs"]
    assert logs["logs"].rstrip().endswith(check["traceback"])
    error = system.call("POST", f"/v1/algo/{algorithm}/{commit}", 1, key=owner_key).json["error"]
    assert error["message"] == "ModuleNotFoundError: No module named 'nothing_like_it'"
    assert error["error_type"] == "LoadingError"
    assert "src/entry.py" in error["stacktrace"]
