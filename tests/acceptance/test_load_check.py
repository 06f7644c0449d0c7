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
    build_id = system.compile(algorithm, commit, {"registry_id": registry_id}).json["build"]["build_id"]
    assert [push["status"] for push in system.statuses(algorithm, commit)] == ["succeeded"]
    build = checked_build(system, algorithm, build_id, owner_key)
    check = build["load_check"]
    assert (build["status"], check["state"]) == ("succeeded", "failed")
    last_line = check["traceback"].splitlines()[-1]
    assert last_line.startswith("ModuleNotFoundError: No module named 'nothing_like_it'. Add the package")
    logs = system.call("GET", f"/v1/algorithms/{algorithm}/builds/{build_id}/logs", key=owner_key).json
    assert "The algorithm's module is src/entry.py, the only one that has apply." in logs["logs"]
    assert logs["logs"].rstrip().endswith(check["traceback"])
    error = system.call("POST", f"/v1/algo/{algorithm}/{commit}", 1, key=owner_key).json["error"]
    assert error["message"] == last_line
    assert error["error_type"] == "LoadingError"
    assert "src/entry.py" in error["stacktrace"]
