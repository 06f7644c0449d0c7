"""Attacks through default registries: an owner's password there, and where the passwords of others go."""

import base64
import uuid
from typing import Any

import pytest

from shared.db.models import Algorithm, ImagePush, Job, PushState, Registry
from tests.git_service import make_algorithm
from tests.rows import HASH, build_commit, fresh, one_row, push
from tests.service.api.invocation import Api
from tests.unit.shared.registry.fake_registry import VERSION, FakeRegistry, Reply, Request, fake_registry
from workers.jobs.executor import run_job
from workers.pushes.push import PushWork

pytestmark = pytest.mark.usefixtures("installation", "broker")

OF_ALGORITHM = "/v1/algorithms/acme/Hello/registry"
ACCOUNT = {"push_username": "acme", "push_password": "only for this machine"}
BASIC = "Basic " + base64.b64encode(b"acme:only for this machine").decode()
LOGIN = {"WWW-Authenticate": 'Basic realm="here"', **VERSION}
PATIENCE = 3
"""Failures after which a registry is paused (LONGSHORE_PAUSE_AFTER_FAILURES, by default)."""


def refuse_owner(request: Request) -> Reply:
    """Ask for credentials, refuse those of the owner, and accept nothing else either."""
    if request.authorization in (None, BASIC):
        return Reply(401, b"{}", LOGIN)
    return Reply(404, b"{}", VERSION)


def run_push(algorithm: Algorithm, registry: Registry) -> ImagePush:
    job = push(build_commit(algorithm, f"{uuid.uuid4().hex}01234567"), registry)
    run_job(job.id, PushWork)
    return one_row(ImagePush, id=job.push_id)


def passwords_sent(server: FakeRegistry) -> set[Any]:
    return {request.authorization for request in server.requests} - {None}


def test_a_wrong_password_of_an_algorithms_default_pauses_the_registry_for_nobody(admin: Api, acme: Api) -> None:
    with fake_registry(refuse_owner) as server:
        registry_id = admin.make_registry(server.url, plain_http=True)
        acme.make_algorithm("acme")
        assert acme.put(OF_ALGORITHM, {"registry_id": registry_id, **ACCOUNT})["can_push"] is False
        algorithm, registry = one_row(Algorithm, owner="acme"), one_row(Registry, id=registry_id)
        for _ in range(PATIENCE + 1):
            assert run_push(algorithm, registry).state == PushState.FAILED
        assert passwords_sent(server) == {BASIC}
    assert (fresh(registry).paused_at, fresh(registry).failures) == (None, 0)


def test_the_password_of_a_default_is_not_sent_to_the_next_address_of_its_registry(admin: Api, acme: Api) -> None:
    with fake_registry(refuse_owner) as before, fake_registry(refuse_owner) as after:
        registry_id = admin.make_registry(before.url, plain_http=True)
        acme.make_algorithm("acme")
        acme.put(OF_ALGORITHM, {"registry_id": registry_id, **ACCOUNT})
        algorithm = one_row(Algorithm, owner="acme")
        build_commit(algorithm)
        acme.post("/v1/algorithms/acme/Hello/compile", {"commitSha": HASH})
        admin.put(f"/v1/registries/{registry_id}", {"registry_url": after.url, "plain_http": True})
        run_job(one_row(Job, kind="push").id, PushWork)
        run_push(algorithm, one_row(Registry, id=registry_id))
        assert passwords_sent(before) == {BASIC}, "the check of setting it"
        assert after.requests
        assert passwords_sent(after) == set()


def test_the_password_of_one_owners_default_pushes_for_no_other_owner(admin: Api, acme: Api) -> None:
    with fake_registry(refuse_owner) as server:
        registry_id = admin.make_registry(server.url, plain_http=True)
        acme.make_algorithm("acme")
        acme.put(OF_ALGORITHM, {"registry_id": registry_id, **ACCOUNT})
        admin.put("/v1/users/acme/registry", {"registry_id": registry_id, **ACCOUNT})
        server.requests.clear()
        other = make_algorithm()
        run_push(other, one_row(Registry, id=registry_id))
        assert server.requests
        assert passwords_sent(server) == set()


def test_a_new_algorithm_of_the_same_name_does_not_get_the_default_of_a_deleted_one(admin: Api, acme: Api) -> None:
    registry_id = admin.make_registry("localhost:1")
    acme.make_algorithm("acme")
    acme.put(OF_ALGORITHM, {"registry_id": registry_id, **ACCOUNT})
    acme.delete("/v1/algorithms/acme/Hello")
    acme.make_algorithm("acme")
    acme.expect_refusal(404, 5004, "GET", OF_ALGORITHM)
