"""Many pushes of one version to one registry at the same time: the row ends with the push accepted last."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from tests.acceptance.system import ECHO, Repository, System, repository
from tests.acceptance.test_pushes import served_digest

PUSHES, CALLERS = 200, 8


@pytest.fixture
def clone(system: System, tmp_path: Path, owner: str, owner_key: str) -> Repository:
    system.create_algorithm(owner, "Echo")
    made = repository(system, tmp_path / "clone", f"{owner}/Echo", owner_key)
    made.write({"src/Echo.py": ECHO})
    return made


def test_the_last_accepted_of_two_hundred_decides(
    system: System, clone: Repository, owner: str, second_registry: PrivateRegistry, second_registry_id: str
) -> None:
    commit = clone.commit()
    clone.push()
    system.compile(f"{owner}/Echo", commit)
    path = f"/v1/algorithms/{owner}/Echo/versions/{commit}/registry"

    def order(good: bool) -> str:
        password = second_registry.users["pusher"] if good else "wrong"
        body = {"registry_id": second_registry_id, "registry_username": "pusher", "registry_password": password}
        answer = system.call("POST", path, {"registry_push_credentials": body})
        assert answer.status == 204, answer.text
        return answer.headers["X-Job-Id"]

    def ended(job_ids: list[str]) -> set[str]:
        return {system.wait_for_job(job_id)["state"] for job_id in job_ids}

    with ThreadPoolExecutor(CALLERS) as callers:
        early = list(callers.map(order, [number % 2 == 0 for number in range(PUSHES - 1)]))
    last = order(True)
    assert ended([last]) == {"succeeded"}
    assert ended(early) <= {"superseded", "succeeded", "failed"}
    (row,) = system.statuses(f"{owner}/Echo", commit)
    assert row["status"] == "succeeded", row
    assert served_digest(second_registry, row["image"]) == row["digest"]

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(order, [number % 2 == 0 for number in range(2 * CALLERS)]))
    assert ended([order(False)]) == {"failed"}
    (after,) = system.statuses(f"{owner}/Echo", commit)
    assert (after["status"], "password" in after["status_message"]) == ("failed", True)
    assert after["last_success"]["digest"] == row["digest"]


def test_a_push_is_cancelled_while_it_runs_and_another_one_follows(
    system: System, clone: Repository, owner: str, registry_id: str
) -> None:
    commit = clone.commit()
    clone.push()
    system.compile(f"{owner}/Echo", commit)
    path = f"/v1/algorithms/{owner}/Echo/versions/{commit}/registry"
    enqueued = system.call("POST", path, {"registry_id": registry_id})
    cancelled = system.call("DELETE", f"{path}/{registry_id}")
    job = system.wait_for_job(enqueued.headers["X-Job-Id"])
    assert (cancelled.status, job["state"]) in ((204, "cancelled"), (409, "succeeded"))
    assert system.call("POST", path, {"registry_id": registry_id}, wait=60).status == 204
    (row,) = system.statuses(f"{owner}/Echo", commit)
    assert row["status"] == "succeeded", row
