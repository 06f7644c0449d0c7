"""Pushes to real registries: a row for each registry, both tags, the last success, many at the same time."""

import sqlite3
import subprocess
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from tests.acceptance.system import ECHO, Repository, System, longshore, repository


@pytest.fixture
def clone(system: System, tmp_path: Path, owner: str, owner_key: str) -> Repository:
    """The repository of a new algorithm, `Echo`."""
    system.create_algorithm(owner, "Echo")
    made = repository(system, tmp_path / "clone", f"{owner}/Echo", owner_key)
    made.write({"src/Echo.py": ECHO})
    return made


def served_digest(registry: PrivateRegistry, image: str) -> str:
    """Return the digest that skopeo reads from the registry."""
    username, password = next(iter(registry.users.items()))
    inspected = subprocess.run(
        [
            "skopeo",
            "inspect",
            "--tls-verify=false",
            "--creds",
            f"{username}:{password}",
            "--format",
            "{{.Digest}}",
            f"docker://{image}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return inspected.stdout.strip()


@pytest.mark.usefixtures("system", "clone", "owner", "registry")
def test_two_registries_are_two_rows_and_a_repush_overwrites_one(
    system: System,
    clone: Repository,
    owner: str,
    registry_id: str,
    second_registry: PrivateRegistry,
    second_registry_id: str,
) -> None:
    commit = clone.commit()
    clone.push()
    given = {"registry_username": "pusher", "registry_password": second_registry.users["pusher"]}
    system.compile(f"{owner}/Echo", pushes=[{"registry_id": registry_id}, {"registry_id": second_registry_id, **given}])
    rows = {row["registry_id"]: row for row in system.statuses(f"{owner}/Echo", commit)}
    assert set(rows) == {registry_id, second_registry_id}
    assert {row["status"] for row in rows.values()} == {"succeeded"}, rows

    path = f"/v1/algorithms/{owner}/Echo/versions/{commit}/registry"
    wrong = {"registry_id": second_registry_id, "registry_username": "pusher", "registry_password": "wrong"}
    assert system.call("POST", path, {"registry_push_credentials": wrong}, wait=30).status == 204
    after = {row["registry_id"]: row for row in system.statuses(f"{owner}/Echo", commit)}
    assert after[registry_id] == rows[registry_id]
    failed = after[second_registry_id]
    assert failed["status"] == "failed"
    assert "password" in failed["status_message"]
    assert failed["last_success"] == rows[second_registry_id]["last_success"]

    assert system.call("POST", path, {"registry_id": second_registry_id, **given}, wait=30).status == 204
    normalize_name = {row["registry_id"]: row for row in system.statuses(f"{owner}/Echo", commit)}[second_registry_id]
    assert (normalize_name["status"], normalize_name["digest"]) == ("succeeded", rows[second_registry_id]["digest"])
    assert normalize_name["last_success"]["finished_at"] > failed["last_success"]["finished_at"]
    assert served_digest(second_registry, normalize_name["image"]) == normalize_name["digest"]


def test_another_client_finds_the_digest_under_both_tags(
    system: System, clone: Repository, owner: str, registry: PrivateRegistry, registry_id: str
) -> None:
    commit = clone.commit()
    clone.push()
    system.compile(f"{owner}/Echo")
    body = {"version_info": {"version_type": "major"}, "registry_push_credentials": {"registry_id": registry_id}}
    published = system.call("POST", f"/v1/algorithms/{owner}/Echo/versions", body, wait=60)
    assert published.json["version_info"]["semantic_version"] == "1.0.0"
    (row,) = system.statuses(f"{owner}/Echo", commit)
    assert row["status"] == "succeeded", row
    repository_name = row["image"].rpartition(":")[0]
    assert served_digest(registry, f"{repository_name}:{commit}") == row["digest"]
    assert served_digest(registry, f"{repository_name}:1.0.0") == row["digest"]


def test_twenty_pushes_at_once_to_two_workers(
    system: System, clone: Repository, owner: str, registry: PrivateRegistry, registry_id: str
) -> None:
    commits = []
    for number in range(20):
        clone.write({"number": str(number)})
        commits.append(clone.commit())
    clone.push()
    compiles = [
        system.call("POST", f"/v1/algorithms/{owner}/Echo/compile", {"commitSha": commit}) for commit in commits
    ]
    for compiled in compiles:
        assert system.wait_for_job(compiled.headers["X-Job-Id"])["state"] == "succeeded"

    def two_workers() -> bool:
        workers = system.call("GET", "/readyz").json["workers"]
        return len([worker for worker in workers if "pushes" in worker["queues"]]) >= 2

    with longshore(system, "worker", "--queues", "pushes", ready=two_workers):
        pushes = [
            system.call("POST", f"/v1/algorithms/{owner}/Echo/versions/{commit}/registry", {"registry_id": registry_id})
            for commit in commits
        ]
        jobs = [system.wait_for_job(pushed.headers["X-Job-Id"]) for pushed in pushes]
    assert [job["state"] for job in jobs] == ["succeeded"] * 20
    assert [job["attempt"] for job in jobs] == [1] * 20
    digests = []
    for commit in commits:
        (row,) = system.statuses(f"{owner}/Echo", commit)
        assert (row["status"], row["attempt"]) == ("succeeded", 1)
        digests.append(row["digest"])
        assert served_digest(registry, row["image"]) == row["digest"]
    assert len(set(digests)) == 20
    assert times_done(system, {job["id"] for job in jobs}) == {job["id"]: 1 for job in jobs}


def times_done(system: System, job_ids: set[str]) -> dict[str, int]:
    """Return how often each job was claimed, by its row."""
    with sqlite3.connect(system.data_dir / "longshore.db") as database:
        rows = database.execute("SELECT id, claim FROM jobs").fetchall()
    return {job_id: claim for job_id, claim in rows if job_id in job_ids}
