"""Objects that a key may not see are 404 in every route, with the same body and statements as missing ones."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from shared.commands.repush import Retry, retry_pushes
from shared.db.engine import database
from shared.db.models import Job, JobKind, JobState, PushState, Version
from shared.db.models.algorithms import PublishState
from shared.invocation.async_calls import record_call
from shared.keys import Caller, known_keys
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    build_commit,
    change,
    end_badly,
    fresh,
    make_claim,
    make_registry,
    one_row,
    push,
)
from tests.service.api.invocation import Api, owner_api
from tests.statements import Statement, recorded_statements

ABSENT_ID = "00000000-0000-4000-8000-000000000000"
BODIES: dict[str, object] = {
    "algorithms.update_algorithm": {"details": {"label": "Mine"}},
    "calls.call_algorithm": 1,
    "default_registries.set_default_of_algorithm": {"registry_id": ABSENT_ID},
    "pushes.repush": {"registry_id": ABSENT_ID},
    "versions.compile_algorithm": {"commitSha": HASH},
    "pulls.pin": {"registry_id": ABSENT_ID},
    "versions.publish_version": {},
}
"""A valid body of each route that needs one."""
SOURCE_WEBHOOK = "source_webhooks.receive_webhook"
"""It takes no key."""


class Hidden:
    """A private algorithm with everything that can belong to one, and the ids of what does not exist."""

    def __init__(self) -> None:
        self.algorithm = make_algorithm("acme")
        self.registry = make_registry()
        self.build = build_commit(self.algorithm)
        self.push = push(self.build, self.registry)
        version = one_row(Version, algorithm_id=self.algorithm.id)
        change(version, semantic_version="1.0.0", publish_state=PublishState.PUBLISHED, callability="private")
        with database().writing() as session:
            self.call_id = record_call(
                session, caller="acme", algorithm=self.algorithm, version=version, max_seconds=300
            )

    def paths(self, rule: Rule) -> tuple[str, str, str] | None:
        """Return the path of a route for the hidden object, the one for an absent object, and the id that differs.

        None: the route names no object of an algorithm.
        """
        values = {
            "build_id": self.build.id,
            "git_hash": HASH,
            "job_id": self.push.id,
            "registry_id": self.registry.id,
            "request_id": self.call_id,
            "version": "1.0.0",
        }
        if "algorithm_id" in rule.arguments:
            present, absent = {"algorithm_id": self.algorithm.id}, {"algorithm_id": ABSENT_ID}
        elif {"owner", "name"} <= rule.arguments:
            present, absent = {"owner": "acme", "name": "Hello"}, {"owner": "acme", "name": "Nothing"}
        elif "job_id" in rule.arguments:
            present, absent = {"job_id": self.push.id}, {"job_id": ABSENT_ID}
        elif "request_id" in rule.arguments:
            present, absent = {"request_id": self.call_id}, {"request_id": ABSENT_ID}
        else:
            return None
        return (
            _fill(rule.rule, {**values, **present}),
            _fill(rule.rule, {**values, **absent}),
            "/".join(absent.values()),
        )


def _fill(rule: str, values: dict[str, str]) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda match: values[match[1]], rule)


@pytest.fixture
def hidden(app: Flask) -> Hidden:  # noqa: ARG001 - it must run first
    return Hidden()


@pytest.fixture(params=["of another owner", "narrowed to another algorithm", "narrowed and without management"])
def stranger(request: pytest.FixtureRequest, app: Flask, admin: Api) -> Api:
    """A client that may not know of `acme/Hello`."""
    if request.param == "of another owner":
        return owner_api(app, admin, "rival")
    may_manage = "without" not in request.param
    return owner_api(app, admin, "acme", algo_acl=["acme/Other"], allow_algo_management=may_manage)


def _requests(app: Flask) -> Iterator[tuple[Rule, str]]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method


def test_no_route_tells_whether_somebody_elses_algorithm_job_or_call_exists(
    app: Flask, hidden: Hidden, stranger: Api
) -> None:
    checked = set()
    for rule, method in _requests(app):
        paths = hidden.paths(rule)
        if paths is None:
            continue
        body = BODIES.get(rule.endpoint)
        with recorded_statements(database()) as for_hidden:
            answer = stranger.call(method, paths[0], body)
        with recorded_statements(database()) as for_absent:
            expected = stranger.call(method, paths[1], body)
        assert (answer.status_code, expected.status_code) == (404, 404), (method, paths)
        assert _error(answer, paths[0], paths[2]) == _error(expected, paths[1], paths[2]), (method, paths)
        assert set(answer.headers.keys()) == set(expected.headers.keys())
        assert _without_key(for_hidden) == _without_key(for_absent), (method, paths)
        checked.add(rule.endpoint)
    assert {"jobs.follow_job", "calls.get_request", "calls.call_algorithm", "versions.get_build_logs"} <= checked
    assert len(checked) >= 18
    assert fresh(hidden.algorithm).deleted_at is None


def _without_key(statements: list[Statement]) -> list[str]:
    """Return the statements but those that authenticate the key, which is remembered for a second."""
    return [each.text for each in statements if "api_keys" not in each.text]


def _error(answer: Any, path: str, absent_id: str) -> tuple[int, str]:
    """Return code and message. The message may repeat the name or id that the request has, and nothing else."""
    error = answer.get_json()["error"]
    message = error["message"]
    for name in (absent_id, "acme/Hello", *re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", path)):
        message = message.replace(name, "IT")
    return error["code"], message


def test_no_anonymous_request_tells_whether_an_algorithm_job_or_call_exists(app: Flask, hidden: Hidden) -> None:
    anonymous = Api(app, None)
    for rule, method in _requests(app):
        paths = hidden.paths(rule)
        if (
            paths is not None and rule.endpoint == SOURCE_WEBHOOK
        ):  # signed instead: tests/security/test_source_webhooks.py
            answers = [anonymous.call(method, path) for path in paths[:2]]
            assert [answer.status_code for answer in answers] == [404, 404]
            continue
        for path in () if paths is None else paths[:2]:
            anonymous.expect_refusal(401, 2002, method, path, BODIES.get(rule.endpoint))


def test_no_list_shows_a_hidden_algorithm(hidden: Hidden, stranger: Api) -> None:
    assert stranger.get("/v1/jobs")["results"] == []
    assert stranger.get("/v1/pushes")["results"] == []
    for query in ("algorithm=acme/Hello", f"algorithm={hidden.algorithm.id}"):
        stranger.expect_refusal(404, 1001 if "/" in query else 1009, "GET", f"/v1/jobs?{query}")
    answer = stranger.call("GET", "/v1/users/acme/algorithms")
    assert answer.status_code == 403 or answer.get_json() == []


def test_a_key_narrowed_to_another_algorithm_does_not_read_the_result_of_a_call(
    app: Flask, admin: Api, hidden: Hidden
) -> None:
    path = f"/v1/requests/{hidden.call_id}"
    owner_api(app, admin, "acme", algo_acl=["acme/Other"]).expect_refusal(404, 5004, "GET", path)
    assert owner_api(app, admin, "acme", algo_acl=["acme/Hello"]).get(path)["algorithm"] == "acme/Hello"


def test_an_algorithm_that_a_key_may_see_but_not_change_is_403(app: Flask, admin: Api, hidden: Hidden) -> None:
    reader = owner_api(app, admin, "acme", allow_algo_management=False)
    for rule, method in _requests(app):
        paths = hidden.paths(rule)
        if paths is not None and method != "GET" and rule.endpoint not in ("calls.call_algorithm", SOURCE_WEBHOOK):
            reader.expect_refusal(403, 2001, method, paths[0], BODIES.get(rule.endpoint))


def test_a_public_algorithm_is_known_to_all_and_changed_by_none_of_them(rival: Api, hidden: Hidden) -> None:
    change(one_row(Version, algorithm_id=hidden.algorithm.id), callability="public")
    rival.expect_refusal(403, 2001, "PUT", "/v1/algorithms/acme/Hello", {})
    rival.expect_refusal(403, 2001, "GET", "/v1/algorithms/acme/Hello/builds")
    rival.expect_refusal(404, 5004, "GET", f"/v1/jobs/{hidden.push.id}")


def test_a_stranger_does_not_learn_which_commits_a_hidden_repository_has(hidden: Hidden, stranger: Api) -> None:
    path = f"/v1/algorithms/acme/Hello/versions/{'b' * 40}/registry"
    stranger.expect_refusal(404, 1001, "POST", path, {"registry_id": hidden.registry.id})


def test_the_first_push_of_an_admins_retry_does_not_show_the_pushes_of_others(acme: Api, admin: Api) -> None:
    for owner in ("acme", "rival"):
        end_badly(make_claim(push(build_commit(make_algorithm(owner)), make_registry())))
    parent, other = retry_pushes(
        database(), Retry(status=PushState.FAILED), request_id=None, record=lambda _session, _jobs: None
    ).jobs
    assert one_row(Job, id=parent).owner == "acme"
    assert [child["id"] for child in admin.get(f"/v1/jobs/{parent}")["children"]] == [other]
    assert acme.get(f"/v1/jobs/{parent}")["children"] == []
    change(one_row(Job, id=parent), state="succeeded")
    events = acme.call("GET", f"/v1/jobs/{parent}/events").get_data(as_text=True)
    assert other not in events
    assert "rival" not in events


def test_a_narrowed_key_reads_its_own_algorithm(app: Flask, admin: Api, hidden: Hidden) -> None:
    narrow = owner_api(app, admin, "acme", algo_acl=["acme/Hello"])
    assert narrow.get("/v1/algorithms/acme/Hello")["id"] == hidden.algorithm.id
    assert {job["kind"] for job in narrow.get("/v1/jobs")["results"]} == {JobKind.COMPILE, JobKind.PUSH}
    assert narrow.get(f"/v1/algorithms/acme/Hello/builds/{hidden.build.id}/logs") is not None


def test_algo_acl_of_an_owner_covers_that_owner_alone() -> None:
    caller = Caller(str(uuid.uuid4()), "acme", admin=False, algorithms=("acme/*",))
    assert caller.reads("acme", "Hello")
    assert not caller.is_for("acme2", "Hello")
    assert not caller.reads("acme/", "Hello")


def test_a_revoked_key_follows_a_job_no_longer(acme: Api, admin: Api, hidden: Hidden) -> None:
    headers = {"Authorization": f"Simple {acme.key}"}
    with acme.app.test_client().get(f"/v1/jobs/{hidden.push.id}/events", headers=headers) as stream:
        events = iter(stream.response)
        assert next(events)
        admin.delete(f"/v1/users/acme/keys/{_key_id(acme)}")
        change(hidden.push, state=JobState.CANCELLED)
        assert "cancelled" not in "".join(map(str, events))


def _key_id(api: Api) -> str:
    caller = known_keys.authenticate_key(database(), str(api.key))
    assert caller is not None
    return caller.key_id
