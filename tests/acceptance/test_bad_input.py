"""Errors of callers, repositories and registries in the whole system: each ends with a message that explains it."""

from pathlib import Path
from typing import Any

import pytest

from dev.services.registry import PrivateRegistry
from tests.acceptance.system import ECHO, Repository, System, longshore_up, repository

GIGABYTE = 1024**3


@pytest.fixture
def clone(system: System, tmp_path: Path, owner: str, owner_key: str) -> Repository:
    """The repository of a new algorithm, `Echo`, to which nothing was pushed."""
    system.create_algorithm(owner, "Echo")
    return repository(system, tmp_path / "clone", f"{owner}/Echo", owner_key)


def compiled(system: System, owner: str, body: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    """Compile and wait; return the ended build and its log."""
    answer = system.call("POST", f"/v1/algorithms/{owner}/Echo/compile", body, wait=60)
    assert answer.status == 200, answer.text
    build = answer.json["build"]
    log = system.call("GET", f"/v1/algorithms/{owner}/Echo/builds/{build['build_id']}/logs").json["logs"]
    return build, log


def test_a_commit_that_does_not_exist(system: System, clone: Repository, owner: str) -> None:
    clone.commit()
    clone.push()
    for commit in ("0123456789abcdef0123456789abcdef01234567", "0123456"):
        status, code, message = system.call("POST", f"/v1/algorithms/{owner}/Echo/compile", {"commitSha": commit}).error
        assert (status, code) == (400, 2015)
        assert commit in message


def test_a_deleted_branch(system: System, clone: Repository, owner: str) -> None:
    clone.commit()
    clone.push()
    clone.git("push", "--quiet", clone.remote, ":main")
    status, code, message = system.call("POST", f"/v1/algorithms/{owner}/Echo/compile").error
    assert (status, code) == (400, 2015)
    assert "branch" in message


def test_a_source_without_src(system: System, clone: Repository, owner: str) -> None:
    clone.write({"README": "nothing else"})
    clone.commit()
    clone.push()
    build, log = compiled(system, owner)
    assert build["status"] == "failed"
    assert "no src/Echo.py" in log


def test_a_broken_requirement_is_named_by_its_line(system: System, clone: Repository, owner: str) -> None:
    clone.write({"src/Echo.py": ECHO, "requirements.txt": "six\n\nthis is no requirement!\n"})
    clone.commit()
    clone.push()
    build, log = compiled(system, owner)
    assert build["status"] == "failed"
    assert "requirements.txt line 3" in log


def test_a_requirement_that_nobody_has_is_named_by_its_line(system: System, clone: Repository, owner: str) -> None:
    clone.write({"src/Echo.py": ECHO, "requirements.txt": "six\nno-such-distribution-4711==9.9\n"})
    clone.commit()
    clone.push()
    build, log = compiled(system, owner)
    assert build["status"] == "failed"
    assert "requirements.txt line 2" in log


def test_a_source_of_a_gigabyte(system: System, clone: Repository, owner: str) -> None:
    clone.write({"src/Echo.py": ECHO})
    with (clone.directory / "zeros").open("wb") as file:
        file.truncate(GIGABYTE)
    clone.git("config", "core.compression", "1")
    clone.commit()
    clone.push()
    build, log = compiled(system, owner)
    assert build["status"] == "failed"
    assert "LONGSHORE_SOURCE_MAX_BYTES" in log


def test_publishing_before_and_twice(system: System, clone: Repository, owner: str) -> None:
    path = f"/v1/algorithms/{owner}/Echo/versions"
    assert system.call("POST", path, {}).error[:2] == (400, 2015)
    clone.write({"src/Echo.py": ECHO})
    clone.commit()
    clone.push()
    system.compile(f"{owner}/Echo")
    assert system.call("POST", path, {}).status == 200
    assert system.call("POST", path, {}).error[:2] == (400, 1007)


def test_pushing_what_was_never_built(system: System, clone: Repository, owner: str, registry_id: str) -> None:
    clone.write({"README": "nothing to build"})
    commit = clone.commit()
    clone.push()
    versions, body = f"/v1/algorithms/{owner}/Echo/versions", {"registry_id": registry_id}
    for named in (commit, commit[:9]):
        assert system.call("POST", f"{versions}/{named}/registry", body).error[:2] == (400, 2015)
    assert system.call("POST", f"{versions}/{'0' * 40}/registry", body).error[:2] == (404, 5004)
    compiled(system, owner)
    assert system.call("POST", f"{versions}/{commit}/registry", body).error[:2] == (400, 2015)


def test_a_push_to_the_default_branch_compiles(system: System, clone: Repository, owner: str) -> None:
    clone.write({"src/Echo.py": ECHO})
    commit = clone.commit()
    clone.push("--verbose")
    (build,) = system.call("GET", f"/v1/algorithms/{owner}/Echo/builds").json["results"]
    assert build["commit_sha"] == commit
    job = system.call("GET", "/v1/jobs?kind=compile&limit=1").json["results"][0]
    assert system.wait_for_job(job["id"])["state"] == "succeeded"


@pytest.fixture
def built(system: System, clone: Repository, owner: str) -> str:
    """A built commit."""
    clone.write({"src/Echo.py": ECHO})
    commit = clone.commit()
    clone.push()
    system.compile(f"{owner}/Echo")
    return commit


def pushed(
    system: System, owner: str, commit: str, registry_id: str, username: str = "", password: str = ""
) -> dict[str, Any]:
    """Push, wait for the end of the job, and return the status."""
    body = {"registry_id": registry_id}
    if username:
        body |= {"registry_username": username, "registry_password": password}
    answer = system.call("POST", f"/v1/algorithms/{owner}/Echo/versions/{commit}/registry", body)
    assert answer.status == 204, answer.text
    system.wait_for_job(answer.headers["X-Job-Id"])
    rows = {row["registry_id"]: row for row in system.statuses(f"{owner}/Echo", commit)}
    return rows[registry_id]


def test_registries_that_cannot_be_pushed_to(
    system: System,
    owner: str,
    built: str,
    registry: PrivateRegistry,
    token_registry: PrivateRegistry,
    tls_registry: PrivateRegistry,
) -> None:
    nobody = pushed(system, owner, built, system.record_registry("127.0.0.1:1"))
    assert (nobody["status"], nobody["attempt"]) == ("failed", 3)
    assert "127.0.0.1:1" in nobody["status_message"]

    no_registry = pushed(system, owner, built, system.record_registry(system.url))
    assert no_registry["status"] == "failed"
    assert "is not a container registry" in no_registry["status_message"]

    untrusted = pushed(
        system, owner, built, system.record_registry(tls_registry.host), "pusher", tls_registry.users["pusher"]
    )
    assert (untrusted["status"], untrusted["attempt"]) == ("failed", 1)
    assert "certificate" in untrusted["status_message"]

    wrong = pushed(system, owner, built, system.record_registry(registry.host), "pusher", "wrong")
    assert (wrong["status"], wrong["attempt"]) == ("failed", 1)
    assert "password" in wrong["status_message"]

    tokens = system.record_registry(token_registry.host)
    reader = pushed(system, owner, built, tokens, "reader", token_registry.users["reader"])
    assert (reader["status"], reader["attempt"]) == ("failed", 1)
    writer = pushed(system, owner, built, tokens, "writer", token_registry.users["writer"])
    assert writer["status"] == "succeeded", writer


def test_the_engine_is_down(tmp_path: Path, base_image: str) -> None:
    with longshore_up(
        tmp_path,
        DOCKER_HOST=f"unix://{tmp_path}/none.sock",
        LONGSHORE_BASE_IMAGE=base_image,
        LONGSHORE_UNAVAILABLE_DELAY_SECONDS="1",
    ) as system:
        key = system.owner_key("down")
        system.create_algorithm("down", "Echo")
        clone = repository(system, tmp_path / "clone", "down/Echo", key)
        clone.write({"src/Echo.py": ECHO})
        clone.commit()
        clone.push()
        answer = system.call("POST", "/v1/algorithms/down/Echo/compile", wait=5)
        job = system.call("GET", answer.headers["Location"]).json
        assert (job["state"], job["attempt"], job["error"]["class"]) == ("queued", 1, "unavailable"), job
        assert "Docker engine" in job["error"]["message"]
        workers = system.call("GET", "/readyz").json["workers"]
        (builder,) = [worker for worker in workers if "builds" in worker["queues"]]
        assert builder["ready"] is False
        assert "Docker engine" in builder["problem"]
