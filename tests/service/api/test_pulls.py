"""`…/versions/HASH/pull`: where instances pull from, why, and the pin."""

import pytest

from shared.commands.serve import ensure_instance
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent, Build, ImagePush, Registry, Version
from shared.instances.states import DesiredState, mark_ready
from shared.pulls.resolution import resolve_pull
from tests.rows import DIGEST, HASH, OTHER_DIGEST, build_commit, change, end_badly, end_push, make_claim, one_row, push
from tests.service.api.invocation import Api

NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def build(acme: Api) -> Build:
    acme.make_algorithm("acme")
    return build_commit(one_row(Algorithm, owner="acme"))


@pytest.fixture
def pull(build: Build) -> str:  # noqa: ARG001 - it must run first
    """The path of the pull of a version."""
    return f"/v1/algorithms/acme/Hello/versions/{HASH}/pull"


@pytest.fixture
def production(admin: Api) -> str:
    return admin.make_registry("prod.example.com")


@pytest.fixture
def sandbox(admin: Api) -> str:
    return admin.make_registry("sandbox.example.com")


def pushed(build: Build, registry_id: str, digest: str = DIGEST) -> None:
    end_push(make_claim(push(build, one_row(Registry, id=registry_id))), digest)


def test_anybody_who_may_read_sees_where_from_and_why(
    acme: Api, rival: Api, admin: Api, build: Build, pull: str, production: str, sandbox: str
) -> None:
    pushed(build, production)
    pushed(build, sandbox, OTHER_DIGEST)
    shown = acme.get(pull)
    reason = shown["considered"][0]["reason"]
    assert shown == {
        "image": f"sandbox.example.com/acme/hello@{OTHER_DIGEST}",
        "digest": OTHER_DIGEST,
        "registry_id": sandbox,
        "reason": reason,
        "considered": [
            {
                "registry_id": sandbox,
                "registry_url": "sandbox.example.com",
                "digest": OTHER_DIGEST,
                "chosen": True,
                "reason": reason,
            },
            {
                "registry_id": production,
                "registry_url": "prod.example.com",
                "digest": DIGEST,
                "chosen": False,
                "reason": "An earlier one of this list is used.",
            },
        ],
        "pinned_registry_id": None,
        "serving": None,
    }
    assert admin.get(pull) == shown
    assert admin.get(f"/v1/algorithms/{build.algorithm_id}/versions/{HASH[:7]}/pull") == shown
    rival.expect_refusal(404, 1001, "GET", pull)
    acme.expect_refusal(404, 5004, "GET", pull.replace(HASH, "f" * 40))


def test_what_the_registry_has_lost_is_still_what_calls_go_to_and_the_reason_says_so(
    acme: Api, build: Build, pull: str, production: str
) -> None:
    pushed(build, production)
    change(one_row(ImagePush, registry_id=production), missing_at=now_ms())
    shown = acme.get(pull)
    assert shown["registry_id"] == production
    assert "did not have the last good image any more" in shown["reason"]


@pytest.mark.usefixtures("production")
def test_where_nothing_can_be_pulled_it_says_what_to_do(acme: Api, pull: str) -> None:
    shown = acme.get(pull)
    assert (shown["image"], shown["digest"], shown["registry_id"]) == (None, None, None)
    for advice in ("versions/HASH/registry", "/v1/registries/ID/adopt", "default registry"):
        assert advice in shown["reason"]


def test_before_the_first_registry_it_comes_from_the_store(acme: Api, admin: Api, build: Build, pull: str) -> None:
    change(build, manifest_digest=DIGEST)
    shown = acme.get(pull)
    assert (shown["image"], shown["registry_id"]) == (f"acme/hello@{DIGEST}", None)
    assert shown["considered"] == [
        {"registry_id": None, "registry_url": None, "digest": DIGEST, "chosen": True, "reason": shown["reason"]}
    ]
    registry_id = admin.make_registry()
    assert acme.get(pull)["image"] is None
    admin.delete(f"/v1/registries/{registry_id}")
    assert acme.get(pull)["image"] is None


def test_a_pin_takes_production_back_and_removing_it_follows_the_pushes_again(
    acme: Api, build: Build, pull: str, production: str, sandbox: str
) -> None:
    pushed(build, production)
    pushed(build, sandbox)
    pinned = acme.put(pull, {"registry_id": production})
    assert (pinned["registry_id"], pinned["pinned_registry_id"]) == (production, production)
    assert acme.put(pull, {"registry_id": production}) == pinned == acme.get(pull)
    for _ in range(2):
        acme.delete(pull)
        assert (acme.get(pull)["registry_id"], acme.get(pull)["pinned_registry_id"]) == (sandbox, None)


def test_what_cannot_be_pulled_from_there_is_not_pinned(
    acme: Api, build: Build, pull: str, production: str, sandbox: str
) -> None:
    acme.expect_refusal(404, 5004, "PUT", pull, {"registry_id": NOWHERE})
    acme.expect_refusal(400, 2015, "PUT", pull, {})
    assert "never pushed there" in acme.expect_refusal(409, 2015, "PUT", pull, {"registry_id": production})
    pushed(build, sandbox)
    end_badly(make_claim(push(build, one_row(Registry, id=production))), message="The password is wrong.")
    message = acme.expect_refusal(409, 2015, "PUT", pull, {"registry_id": production})
    assert "The password is wrong." in message
    assert one_row(Version, id=build.version_id).pinned_registry_id is None
    assert acme.get(pull)["registry_id"] == sandbox


def test_only_those_who_manage_it_pin_it(rival: Api, build: Build, pull: str, production: str) -> None:
    pushed(build, production)
    rival.expect_refusal(404, 1001, "PUT", pull, {"registry_id": production})
    rival.expect_refusal(404, 1001, "DELETE", pull)


def test_a_pinned_registry_that_is_deleted_leaves_nowhere_to_pull_from(
    acme: Api, admin: Api, build: Build, pull: str, production: str, sandbox: str
) -> None:
    pushed(build, sandbox)
    pushed(build, production)
    acme.put(pull, {"registry_id": production})
    admin.delete(f"/v1/registries/{production}")
    shown = acme.get(pull)
    assert (shown["image"], shown["pinned_registry_id"]) == (None, production)
    assert "remove the pin" in shown["reason"]
    acme.delete(pull)
    assert acme.get(pull)["registry_id"] == sandbox


def test_pins_stand_in_the_audit_trail(acme: Api, build: Build, pull: str, production: str) -> None:
    pushed(build, production)
    acme.put(pull, {"registry_id": production})
    acme.delete(pull)
    entry = one_row(AuditEvent, action="pull.pin")
    assert (entry.actor, entry.target_id, entry.detail["registry"]) == ("acme", build.version_id, production)
    assert one_row(AuditEvent, action="pull.unpin").detail["commit"] == HASH


def test_it_tells_of_what_runs(acme: Api, build: Build, pull: str, production: str) -> None:
    pushed(build, production)
    with database().writing() as session:
        algorithm = session.get_one(Algorithm, one_row(Algorithm, id=build.algorithm_id).seq)
        version = session.get_one(Version, one_row(Version, id=build.version_id).seq)
        wanted = DesiredState.of(algorithm, version, resolve_pull(session, algorithm, version))
        assert wanted is not None
        instance, _ = ensure_instance(session, wanted)
    assert acme.get(pull)["serving"]["state"] == "pending"
    with database().writing() as session:
        mark_ready(session, instance.id, endpoint="unix:1", runtime_ref="1")
    shown = acme.get(pull)["serving"]
    assert shown.pop("since").endswith("Z")
    assert shown == {"state": "ready", "message": "Takes calls.", "image": wanted.image}
