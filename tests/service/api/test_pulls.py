"""Where an execution pulls from, as callers read and pin it."""

import pytest

from shared.models import Algorithm, AuditEvent, ImagePush, Job
from tests.rows import DIGEST, HASH, build_commit, change, end_push, taken, the


@pytest.fixture
def hello(acme) -> str:
    """The path of a version with a succeeded build."""
    path = acme.make_algorithm("acme")
    build_commit(the(Algorithm, owner="acme"))
    return f"{path}/versions/{HASH}"


def push_well(acme, hello: str, registry_id: str) -> None:
    acme.post(f"{hello}/registry", {"registry_id": registry_id})
    row = the(ImagePush, registry_id=registry_id)
    end_push(taken(the(Job, id=row.job_id)))
    change(row, last_success_image=row.image)


def test_anybody_can_see_why(acme, admin, hello):
    seen = acme.get(f"{hello}/pull")
    assert (seen["image"], seen["digest"], seen["registry_id"], seen["serving"]) == (None, None, None, None)
    assert "never pushed" in seen["reason"]
    registry, sandbox = admin.make_registry(), admin.make_registry("sandbox.example.com")
    push_well(acme, hello, registry)
    push_well(acme, hello, sandbox)
    seen = acme.get(f"{hello}/pull")
    assert seen["image"] == f"sandbox.example.com/acme/hello@{DIGEST}"
    assert (seen["digest"], seen["registry_id"], seen["pinned_registry_id"]) == (DIGEST, sandbox, None)
    assert [one["registry_id"] for one in seen["considered"]] == [sandbox, registry]
    assert [one["chosen"] for one in seen["considered"]] == [True, False]


def test_a_pin_holds_until_it_is_taken_away(acme, admin, hello):
    registry, sandbox = admin.make_registry(), admin.make_registry("sandbox.example.com")
    push_well(acme, hello, registry)
    push_well(acme, hello, sandbox)
    for _ in range(2):
        pinned = acme.put(f"{hello}/pull", {"registry_id": registry})
        assert (pinned["registry_id"], pinned["pinned_registry_id"]) == (registry, registry)
    push_well(acme, hello, sandbox)
    assert acme.get(f"{hello}/pull")["registry_id"] == registry
    for _ in range(2):
        assert acme.call("DELETE", f"{hello}/pull").status_code == 204
    assert acme.get(f"{hello}/pull")["registry_id"] == sandbox
    assert the(AuditEvent, action="pull.unpin").detail["registry_id"] == registry


def test_a_registry_without_a_good_push_cannot_be_pinned(acme, admin, hello):
    registry = admin.make_registry()
    said = acme.expect_refusal(409, 2015, "PUT", f"{hello}/pull", {"registry_id": registry})
    assert "push it there first" in said
    acme.expect_refusal(404, 5004, "PUT", f"{hello}/pull", {"registry_id": "0" * 8})
    acme.expect_refusal(400, 2015, "PUT", f"{hello}/pull", {})
    acme.expect_refusal(400, 2015, "PUT", f"{hello}/pull", {"registry_id": 7})


def test_others_neither_see_nor_pin(rival, admin, acme, hello):
    registry = admin.make_registry()
    push_well(acme, hello, registry)
    rival.expect_refusal(403, 2001, "GET", f"{hello}/pull")
    rival.expect_refusal(403, 2001, "PUT", f"{hello}/pull", {"registry_id": registry})
    rival.expect_refusal(403, 2001, "DELETE", f"{hello}/pull")
