"""Default registries: where pushes go that name no registry, and who may set and see that."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from dev.services.registry import PrivateRegistry
from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent, DefaultRegistry, ImagePush, Job, Registry
from shared.encryption import keyring
from shared.registries.credentials import decrypt_default_credentials, decrypt_push_account
from shared.registry.credentials import Credentials
from tests.concurrency import run_concurrently
from tests.rows import HASH, OTHER_HASH, build_commit, end_build, make_claim, one_row
from tests.service.api.invocation import Api

NOWHERE = "localhost:1"
PUSH_ACCOUNT = {"push_username": "pusher", "push_password": "open sesame"}
PUSHER = Credentials("pusher", "open sesame")
RECORD_DEFAULT = {"registry_url": NOWHERE, "default": True}
OF_OWNER = "/v1/users/acme/registry"
OF_ALGORITHM = "/v1/algorithms/acme/Hello/registry"
ANY_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def hello(acme: Api) -> str:
    """The path of an algorithm."""
    return acme.make_algorithm("acme")


@pytest.fixture
def three(admin: Api, acme: Api, hello: str) -> dict[str, str]:  # noqa: ARG001 - the algorithm comes first
    """The default registries of the installation, the owner and the algorithm, by level."""
    ids = {level: admin.make_registry(NOWHERE, name=level) for level in ("installation", "owner", "algorithm")}
    admin.put(f"/v1/registries/{ids['installation']}", {"registry_url": NOWHERE, "default": True})
    admin.put(OF_OWNER, {"registry_id": ids["owner"]})
    acme.put(OF_ALGORITHM, {"registry_id": ids["algorithm"]})
    return ids


def pushed_to(job_id: str) -> list[str | None]:
    """Return the registries that a compile or publish pushes to."""
    with database().reading() as session:
        return list(session.scalars(select(Job.registry_id).where(Job.parent_id == job_id).order_by(Job.seq)))


def compiled_to(api: Api, path: str, body: Any = None) -> list[str | None]:
    response = api.call("POST", f"{path}/compile", {"commitSha": HASH, **(body or {})})
    assert response.status_code == 200, response.get_data(as_text=True)
    return pushed_to(response.headers["X-Job-Id"])


def details_of(action: str) -> list[dict[str, Any]]:
    with database().reading() as session:
        return list(
            session.scalars(select(AuditEvent.detail).where(AuditEvent.action == action).order_by(AuditEvent.seq))
        )


def test_the_nearest_default_applies(admin: Api, acme: Api, hello: str, three: dict[str, str]) -> None:
    for level, remove in (("algorithm", OF_ALGORITHM), ("owner", OF_OWNER), ("installation", None)):
        shown = acme.get(OF_ALGORITHM)
        assert (shown["registry_id"], shown["from"]) == (three[level], level)
        assert compiled_to(acme, hello) == [three[level]]
        if remove:
            assert admin.call("DELETE", remove).status_code == 204
            assert admin.call("DELETE", remove).status_code == 204
    admin.put(f"/v1/registries/{three['installation']}", {"registry_url": NOWHERE, "default": False})
    assert "PUT" in acme.expect_refusal(404, 5004, "GET", OF_ALGORITHM)
    assert "acme" in acme.expect_refusal(404, 5004, "GET", OF_OWNER)
    assert compiled_to(acme, hello) == []


def test_an_algorithm_is_named_by_its_id_too_and_may_be_called_registry(acme: Api, three: dict[str, str]) -> None:
    path = acme.make_algorithm("acme", "registry")
    algorithm_id = one_row(Algorithm, name="registry").id
    assert acme.get(path)["id"] == algorithm_id
    acme.put(f"/v1/algorithms/{algorithm_id}/registry", {"registry_id": three["algorithm"]})
    for name in (algorithm_id, algorithm_id.upper(), "acme/registry"):
        assert acme.get(f"/v1/algorithms/{name}/registry")["from"] == "algorithm"
    acme.expect_refusal(404, 1009, "GET", f"/v1/algorithms/{ANY_ID}/registry")


@pytest.mark.parametrize("empty", [{}, {"registry_push_credentials": {}}])
def test_what_is_left_out_is_not_named(acme: Api, hello: str, three: dict[str, str], empty: dict[str, Any]) -> None:
    assert compiled_to(acme, hello, empty) == [three["algorithm"]]


def test_a_named_registry_wins_and_null_is_nowhere(acme: Api, hello: str, three: dict[str, str]) -> None:
    named = {"registry_push_credentials": {"registry_id": three["owner"]}}
    assert compiled_to(acme, hello, named) == [three["owner"]]
    nowhere: tuple[object, ...] = (None, [])
    for none in nowhere:
        assert compiled_to(acme, hello, {"registry_push_credentials": none}) == []


def test_a_build_that_is_there_a_joined_one_and_a_publish_are_pushed_too(
    acme: Api, hello: str, three: dict[str, str]
) -> None:
    first = acme.call("POST", f"{hello}/compile", {"commitSha": OTHER_HASH})
    joined = acme.call("POST", f"{hello}/compile", {"commitSha": OTHER_HASH})
    assert pushed_to(joined.headers["X-Job-Id"]) == [three["algorithm"]]
    end_build(make_claim(one_row(Job, id=first.headers["X-Job-Id"])))
    shown = acme.post(f"{hello}/compile", {"commitSha": OTHER_HASH})
    assert shown["build"]["status"] == "succeeded"
    assert shown["build"]["registry_status"]["registry_id"] == three["algorithm"]
    published = acme.call("POST", f"{hello}/versions", {"version_info": {"version_type": "minor"}})
    assert pushed_to(published.headers["X-Job-Id"]) == [three["algorithm"]]
    assert published.get_json()["build"]["registry_status"]["status"] == "queued"
    assert details_of("publish")[-1]["to"] == [three["algorithm"]]


def test_a_publish_with_null_is_pushed_nowhere(acme: Api, hello: str, three: dict[str, str]) -> None:  # noqa: ARG001
    build_commit(one_row(Algorithm, name="Hello"))
    published = acme.call("POST", f"{hello}/versions", {"registry_push_credentials": None})
    assert pushed_to(published.headers["X-Job-Id"]) == []


def test_the_default_of_the_installation_is_one_and_moves(admin: Api) -> None:
    first = admin.post("/v1/registries", {"registry_url": NOWHERE, "default": True})
    assert (first["default"], first["can_push"]) == (True, False)
    assert NOWHERE in first["message"]
    second = admin.post("/v1/registries", {"registry_url": NOWHERE})
    assert second["default"] is False
    assert "can_push" not in second
    assert admin.put(f"/v1/registries/{second['id']}", {"registry_url": NOWHERE, "default": True})["default"] is True
    assert {row["id"]: row["default"] for row in admin.get("/v1/registries")} == {
        first["id"]: False,
        second["id"]: True,
    }
    assert admin.put(f"/v1/registries/{second['id']}", {"registry_url": NOWHERE, "name": "left"})["default"] is True
    admin.expect_refusal(400, 2015, "PUT", f"/v1/registries/{second['id']}", {"registry_url": NOWHERE, "default": None})
    assert admin.post("/v1/registries", {"registry_url": NOWHERE, "default": True})["default"] is True
    assert [row["default"] for row in admin.get("/v1/registries")] == [True, False, False]


def test_a_deleted_registry_is_nobodys_default_and_the_answer_says_whose_it_was(
    admin: Api, acme: Api, hello: str
) -> None:
    registry_id = admin.make_registry(NOWHERE, default=True, **PUSH_ACCOUNT)
    admin.put(OF_OWNER, {"registry_id": registry_id, **PUSH_ACCOUNT})
    acme.put(OF_ALGORITHM, {"registry_id": registry_id})
    deleted = admin.delete(f"/v1/registries/{registry_id}")
    assert deleted["removed_defaults"] == [
        {"from": "installation", "name": None},
        {"from": "owner", "name": "acme"},
        {"from": "algorithm", "name": "acme/Hello"},
    ]
    assert (deleted["default"], deleted["has_push_credentials"]) == (False, False)
    assert one_row(Registry, id=registry_id).push_credentials is None
    acme.expect_refusal(404, 5004, "GET", OF_ALGORITHM)
    assert compiled_to(acme, hello) == []
    assert details_of("registry.delete")[-1]["defaults"] == ["installation", "acme", "acme/Hello"]
    assert admin.make_registry(NOWHERE, default=True)


def test_a_deleted_algorithm_leaves_no_default(acme: Api, hello: str, three: dict[str, str]) -> None:
    acme.put(OF_ALGORITHM, {"registry_id": three["owner"], **PUSH_ACCOUNT})
    acme.delete(hello)
    with database().reading() as session:
        assert list(session.scalars(select(DefaultRegistry.level))) == ["owner"]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, PUSHER),
        ({"push_username": None, "push_password": None}, None),
        ({"push_username": "", "push_password": ""}, None),
        ({"push_username": {}, "push_password": {}}, PUSHER),
        ({"push_username": "new", "push_password": "word"}, Credentials("new", "word")),
    ],
)
def test_a_change_keeps_or_removes_a_push_account(
    admin: Api,
    acme: Api,
    hello: str,  # noqa: ARG001 - the algorithm comes first
    fields: dict[str, Any],
    kept: Credentials | None,
) -> None:
    registry_id = admin.make_registry(NOWHERE, **PUSH_ACCOUNT)
    changed = admin.put(f"/v1/registries/{registry_id}", {"registry_url": NOWHERE, **fields})
    registry = one_row(Registry, id=registry_id)
    assert changed["has_push_credentials"] == (kept is not None)
    assert (registry.push_credentials and decrypt_push_account(keyring(), registry)) == kept
    acme.put(OF_ALGORITHM, {"registry_id": registry_id, **PUSH_ACCOUNT})
    shown = acme.put(OF_ALGORITHM, {"registry_id": registry_id, **fields})
    row = one_row(DefaultRegistry, level="algorithm")
    assert shown["has_push_credentials"] == (kept is not None)
    assert (row.push_credentials and decrypt_default_credentials(keyring(), row)) == kept


def test_a_push_account_is_for_one_registry_as_it_was(admin: Api, acme: Api, three: dict[str, str]) -> None:
    acme.put(OF_ALGORITHM, {"registry_id": three["algorithm"], **PUSH_ACCOUNT})
    admin.put(OF_OWNER, {"registry_id": three["algorithm"], **PUSH_ACCOUNT})
    assert acme.put(OF_ALGORITHM, {"registry_id": three["owner"]})["has_push_credentials"] is False
    acme.put(OF_ALGORITHM, {"registry_id": three["algorithm"], **PUSH_ACCOUNT})
    path = f"/v1/registries/{three['algorithm']}"
    admin.put(path, {"registry_url": f"{NOWHERE}/team", **PUSH_ACCOUNT})
    assert acme.get(OF_ALGORITHM)["has_push_credentials"] is True
    changed = admin.put(path, {"registry_url": "127.0.0.1:1"})
    assert changed["has_push_credentials"] is False
    assert acme.get(OF_ALGORITHM)["has_push_credentials"] is False
    assert acme.get(OF_OWNER)["has_push_credentials"] is False


@pytest.mark.parametrize("half", [{"push_username": "pusher"}, {"push_username": "", "push_password": "open"}])
def test_half_of_a_push_account_is_refused(admin: Api, hello: str, half: dict[str, str]) -> None:  # noqa: ARG001
    registry_id = admin.make_registry(NOWHERE)
    for method, path, body in (
        ("POST", "/v1/registries", {"registry_url": NOWHERE}),
        ("PUT", f"/v1/registries/{registry_id}", {"registry_url": NOWHERE}),
        ("PUT", OF_OWNER, {"registry_id": registry_id}),
        ("PUT", OF_ALGORITHM, {"registry_id": registry_id}),
    ):
        assert "push_username and push_password" in admin.expect_refusal(400, 2015, method, path, {**body, **half})


def test_empty_texts_are_no_credentials(admin: Api, acme: Api, hello: str) -> None:
    none = {"registry_username": "", "registry_password": ""}
    registry_id = admin.make_registry(NOWHERE, **none)
    assert admin.get(f"/v1/registries/{registry_id}")["has_credentials"] is False
    acme.post(
        f"{hello}/compile", {"commitSha": HASH, "registry_push_credentials": {"registry_id": registry_id, **none}}
    )
    assert one_row(Job, registry_id=registry_id).credentials is None
    admin.put(f"/v1/registries/{registry_id}", {"registry_url": NOWHERE, "registry_auth": "cHVzaGVyOm9wZW4="})
    changed = admin.put(f"/v1/registries/{registry_id}", {"registry_url": NOWHERE, **none})
    assert changed["has_credentials"] is False


def test_who_may_set_and_see_what(admin: Api, acme: Api, rival: Api, three: dict[str, str]) -> None:
    body = {"registry_id": three["owner"]}
    acme.expect_refusal(403, 2001, "PUT", OF_OWNER, body)
    acme.expect_refusal(403, 2001, "DELETE", OF_OWNER)
    assert acme.get(OF_OWNER)["from"] == "owner"
    for method in ("GET", "PUT", "DELETE"):
        sent = body if method == "PUT" else None
        for there, missing in (
            (OF_OWNER, "/v1/users/nobody/registry"),
            (OF_ALGORITHM, "/v1/algorithms/acme/None/registry"),
        ):
            refused, unknown = rival.call(method, there, sent), rival.call(method, missing, sent)
            texts = [
                answer.get_json()["error"]["message"].replace("nobody", "acme").replace("acme/None", "acme/Hello")
                for answer in (refused, unknown)
            ]
            assert (refused.status_code, refused.get_json()["error"]["code"], texts[0]) == (
                404,
                unknown.get_json()["error"]["code"],
                texts[1],
            )
    admin.expect_refusal(404, 3000, "PUT", "/v1/users/nobody/registry", body)
    admin.expect_refusal(404, 5004, "PUT", OF_OWNER, {"registry_id": ANY_ID})
    acme.expect_refusal(404, 5004, "PUT", OF_ALGORITHM, {"registry_id": ANY_ID})


def test_the_default_of_a_public_algorithm_of_another_owner_is_not_there(
    admin: Api, acme: Api, rival: Api, hello: str, three: dict[str, str]
) -> None:
    build_commit(one_row(Algorithm, name="Hello"))
    acme.post(f"{hello}/versions", {"settings": {"algorithm_callability": "public"}})
    assert rival.call("GET", hello).status_code == 403
    hidden = rival.expect_refusal(404, 5004, "GET", OF_ALGORITHM)
    rival.expect_refusal(403, 2001, "PUT", OF_ALGORITHM, {"registry_id": three["owner"]})
    rival.expect_refusal(403, 2001, "DELETE", OF_ALGORITHM)
    for level in three.values():
        admin.delete(f"/v1/registries/{level}")
    assert rival.expect_refusal(404, 5004, "GET", OF_ALGORITHM) == hidden


def test_setting_a_default_is_recorded_without_its_credentials(admin: Api, acme: Api, three: dict[str, str]) -> None:
    shown = acme.put(OF_ALGORITHM, {"registry_id": three["owner"], **PUSH_ACCOUNT})
    assert (shown["can_push"], NOWHERE in shown["message"], shown["has_push_credentials"]) == (False, True, True)
    assert "can_push" not in acme.get(OF_ALGORITHM)
    admin.delete(OF_OWNER)
    said = details_of("algorithm.default_registry")[-1]
    assert said == {"algorithm": "acme/Hello", "registry": three["owner"], "has_push_credentials": True}
    assert details_of("owner.default_registry")[-1] == {"removed": True}
    assert "sesame" not in str(shown)


def test_setting_a_default_says_what_a_check_with_its_account_says(
    admin: Api,
    acme: Api,
    hello: str,  # noqa: ARG001 - the algorithm comes first
    token_registry: PrivateRegistry,
) -> None:
    recorded = {"registry_url": token_registry.url, "registry_username": "reader", "registry_password": "reader-secret"}
    writer = {"push_username": "writer", "push_password": "writer-secret"}
    made = admin.post("/v1/registries", {**recorded, "default": True})
    assert (made["can_push"], "allows pulling" in made["message"]) == (False, True)
    for path, answers in ((OF_OWNER, admin), (OF_ALGORITHM, acme)):
        assert answers.put(path, {"registry_id": made["id"]})["can_push"] is False
        shown = answers.put(path, {"registry_id": made["id"], **writer})
        assert (shown["can_push"], "allows pushing and pulling" in shown["message"]) == (True, True)
        answers.delete(path)
    assert admin.put(f"/v1/registries/{made['id']}", {**recorded, **writer})["can_push"] is True
    assert acme.put(OF_ALGORITHM, {"registry_id": made["id"]})["can_push"] is True


def test_two_requests_at_once_make_one_default(admin: Api) -> None:
    made = run_concurrently(*[lambda: admin.call("POST", "/v1/registries", RECORD_DEFAULT)] * 2)
    assert [answer.status_code for answer in made] == [200, 200]
    assert sorted(row["default"] for row in admin.get("/v1/registries")) == [False, True]
    ids = [row["id"] for row in admin.get("/v1/registries")]
    moved = run_concurrently(*[partial(admin.call, "PUT", f"/v1/registries/{each}", RECORD_DEFAULT) for each in ids])
    assert [answer.status_code for answer in moved] == [200, 200]
    assert sorted(row["default"] for row in admin.get("/v1/registries")) == [False, True]


def test_the_credentials_of_a_default_that_cannot_be_read_fail_no_request(
    acme: Api, hello: str, three: dict[str, str]
) -> None:
    acme.put(OF_ALGORITHM, {"registry_id": three["algorithm"], **PUSH_ACCOUNT})
    row = one_row(DefaultRegistry, level="algorithm")
    with database().writing() as session:
        session.merge(row).push_credentials = "gone." + str(row.push_credentials).partition(".")[2]
    assert "'gone'" in acme.put(OF_ALGORITHM, {"registry_id": three["algorithm"]})["message"]
    assert compiled_to(acme, hello) == [three["algorithm"]]


def test_a_paused_default_takes_the_push_and_the_status_says_that_it_waits(
    admin: Api, acme: Api, hello: str, three: dict[str, str]
) -> None:
    build_commit(one_row(Algorithm, name="Hello"))
    admin.post(f"/v1/registries/{three['algorithm']}/pause", {"reason": "moving house"})
    shown = acme.post(f"{hello}/compile", {"commitSha": HASH})
    assert "Moving house." in shown["build"]["registry_status"]["status_message"]
    assert one_row(ImagePush, registry_id=three["algorithm"]).state == "queued"
