"""Attacks of one owner on the share of others, with many keys."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy import select, update

from api.invocation.async_calls import async_calls
from api.owner_slots import OwnerSlots, call_slots
from api.rate_limits import _rate_limits_of
from shared.commands.queue_limit import require_room_in_queue
from shared.db.engine import database
from shared.db.models import Instance, InstanceState, Job, JobState
from shared.errors import LimitReachedError, UnavailableError, WorkError
from shared.settings import settings
from tests.git_service import make_algorithm, make_key
from tests.rows import HASH, OTHER_HASH, change, compile_commit, fresh, one_row
from tests.service.api.invocation import Api, owner_api
from tests.service.api.serving import pending_instance, pushed_version, ready
from workers.serving import capacity
from workers.serving.capacity import free_capacity, free_capacity_of_owner


@contextmanager
def _limits(monkeypatch: pytest.MonkeyPatch, **variables: int) -> Iterator[None]:
    """Use other limits during the block."""
    caches = (settings, call_slots, _rate_limits_of)
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"LONGSHORE_{name.upper()}", str(value))
        for cached in caches:
            cached.cache_clear()
        yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize(
    ("limit", "method", "path", "body"),
    [
        ("rate_limit_reads", "GET", "/v1/jobs", None),
        ("rate_limit_changes", "POST", "/v1/algorithms/acme", {}),
        ("rate_limit_calls", "POST", "/v1/algo/acme/Nothing", 1),
    ],
)
def test_many_keys_of_one_owner_have_one_rate_limit(
    acme: Api, rival: Api, monkeypatch: pytest.MonkeyPatch, limit: str, method: str, path: str, body: object
) -> None:
    keys = [Api(acme.app, make_key("acme")) for _ in range(4)]
    with _limits(monkeypatch, **{limit: 2}):
        answers = [api.call(method, path, body) for api in keys]
        assert [answer.status_code == 429 for answer in answers] == [False, False, True, True]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert rival.call(method, path, body).status_code != 429


def test_an_owner_does_not_make_keys_without_end(acme: Api, admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"key_type": "AlgorithmKey"}
    present = len(acme.get("/v1/users/acme/keys"))
    with _limits(monkeypatch, max_keys_per_owner=present + 1):
        key = acme.post("/v1/users/acme/keys", body)
        assert "LONGSHORE_MAX_KEYS_PER_OWNER" in acme.expect_refusal(429, 2015, "POST", "/v1/users/acme/keys", body)
        admin.post("/v1/users/acme/keys", body)
        for each in acme.get("/v1/users/acme/keys")[:2]:
            acme.delete(f"/v1/users/acme/keys/{each['id']}")
        assert acme.post("/v1/users/acme/keys", body)["id"] != key["id"]


def test_an_owner_does_not_fill_the_queue(
    app: Flask, acme: Api, rival: Api, admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = acme.make_algorithm("acme"), rival.make_algorithm("rival")
    with _limits(monkeypatch, max_queued_jobs_per_owner=3):
        for number in range(3):
            acme.post(f"{path}/compile", {"commitSha": str(number) * 40})
        second_key = Api(app, make_key("acme"))
        refused = second_key.call("POST", f"{path}/compile", {"commitSha": "3" * 40})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
        rival.post(f"{other}/compile", {"commitSha": HASH})
        admin.post(f"{path}/compile", {"commitSha": "4" * 40})
        with database().writing() as session:
            session.execute(update(Job).where(Job.owner == "acme").values(state=JobState.CANCELLED))
        acme.post(f"{path}/compile", {"commitSha": "5" * 40})


@pytest.mark.usefixtures("app")
def test_jobs_that_ended_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = make_algorithm("acme")
    jobs = [compile_commit(algorithm, commit).job for commit in (HASH, OTHER_HASH)]
    with _limits(monkeypatch, max_queued_jobs_per_owner=2), database().reading() as session:
        with pytest.raises(LimitReachedError):
            require_room_in_queue(session, "acme")
        require_room_in_queue(session, "rival")
    change(jobs[0], state=JobState.SUCCEEDED)
    with _limits(monkeypatch, max_queued_jobs_per_owner=2), database().reading() as session:
        require_room_in_queue(session, "acme")


def test_slots_of_one_owner_leave_slots_for_others() -> None:
    slots = OwnerSlots("do something", 4, 2)
    with slots.hold("a"), slots.hold("a"):
        with pytest.raises(LimitReachedError, match="2 requests of a that do something") as refused, slots.hold("a"):
            pass
        assert refused.value.retry_after is not None
        with slots.hold("b"), slots.hold("b"), pytest.raises(UnavailableError), slots.hold("c"):
            pass
    with slots.hold("a"), slots.hold("a"):
        pass


@pytest.mark.usefixtures("short_serving_dir", "version")
@pytest.mark.parametrize("output", ["output=raw", "output=void"])
def test_calls_of_one_owner_leave_room_for_the_calls_of_others(
    app: Flask, acme: Api, rival: Api, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """The calls in progress wait for an instance, which nothing starts here."""
    path = f"/v1/algo/acme/Hello?{output}"
    with _limits(monkeypatch, calls_per_owner=1):
        with call_slots().hold("acme"):
            refused = Api(app, make_key("acme")).call("POST", f"{path}&timeout=60", 1)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
            rival.call("POST", f"{path}&timeout=0.5", 1)
            assert async_calls.wait_until_idle(60) == []
            assert one_row(Instance).state == InstanceState.PENDING, "the call of the other owner began"
        assert acme.call("POST", f"{path}&timeout=0.5", 1).status_code != 429
        assert async_calls.wait_until_idle(60) == []
        with call_slots().hold("acme"), call_slots().hold("rival"):
            pass  # every call has given its slot back


def _running(owner: str, number: int) -> list[Instance]:
    """Make instances of an owner that take calls, as far as the database knows."""
    algorithms = [make_algorithm(owner, f"A{each}") for each in range(number)]
    instances = [pending_instance(each, pushed_version(each)) for each in algorithms]
    for instance in instances:
        ready(instance)
    return instances


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every instance is idle, the older ones for longer."""
    monkeypatch.setattr(capacity, "_idle_seconds", lambda instance: 1000.0 - instance.seq)


def _drained(*instances: Instance) -> list[bool]:
    return [fresh(instance).state == InstanceState.DRAINING for instance in instances]


@pytest.mark.usefixtures("app", "idle")
def test_an_owner_at_its_limit_has_its_own_instance_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    others, own = _running("rival", 2), _running("acme", 2)
    with _limits(monkeypatch, serving_max_instances_per_owner=2):
        with pytest.raises(WorkError, match="PER_OWNER"):
            free_capacity_of_owner("acme")
        free_capacity_of_owner("third")
    assert _drained(*others, *own) == [False, False, True, False]


@pytest.mark.usefixtures("app", "idle")
def test_one_owner_does_not_evict_the_instances_of_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rival, third, own = _running("rival", 1), _running("third", 1), _running("acme", 2)
    with _limits(monkeypatch, serving_max_instances=4), pytest.raises(WorkError, match="on this machine"):
        free_capacity("acme")
    assert _drained(*rival, *third, *own) == [False, False, True, False]


@pytest.mark.usefixtures("app", "idle")
def test_an_instance_of_an_owner_who_has_more_is_stopped_for_a_new_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    rival, own = _running("rival", 1), _running("acme", 3)
    with _limits(monkeypatch, serving_max_instances=4), pytest.raises(WorkError, match="on this machine"):
        free_capacity("rival")
    assert _drained(*rival, *own) == [True, False, False, False], "its own is idle longest"
    change(rival[0], state=InstanceState.PENDING)
    with _limits(monkeypatch, serving_max_instances=3), pytest.raises(WorkError, match="on this machine"):
        free_capacity("rival")
    assert _drained(*own) == [True, False, False]


@pytest.mark.usefixtures("app")
def test_starts_of_one_owner_leave_workers_for_the_starts_of_others(
    app: Flask, admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = owner_api(app, admin, "acme")
    for owner, number in (("acme", 3), ("rival", 1)):
        for each in range(number):
            pushed_version(make_algorithm(owner, f"A{each}"), semantic_version="1.0.0", publish_state="published")
    with _limits(monkeypatch, serving_starts_per_owner=2):
        for name in ("A0", "A1", "A2"):
            refused = acme.call("POST", f"/v1/algo/acme/{name}?timeout=0.5", 1)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
        assert "2 instances of acme are starting" in refused.get_json()["error"]["message"]
        assert owner_api(app, admin, "rival").call("POST", "/v1/algo/rival/A0?timeout=0.5", 1).status_code == 503
    with database().reading() as session:
        assert sorted(session.scalars(select(Instance.owner))) == [
            "acme",
            "acme",
            "rival",
        ]
