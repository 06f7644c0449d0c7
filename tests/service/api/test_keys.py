"""API keys: who may create them, what they allow, and that a secret is returned once."""

import hashlib
import json
import re
from typing import Any

import pytest
from flask import Flask

from shared.db.engine import database
from shared.db.models import ApiKey, AuditEvent, KeyKind
from shared.keys import known_keys
from tests.concurrency import run_concurrently
from tests.rows import one_row
from tests.service.api.invocation import Api, owner_api


def test_an_admin_makes_an_owner_with_its_first_key(admin: Api, app: Flask) -> None:
    made = admin.post("/v1/admin/users/newcomer/keys", {"key_label": "ci", "key_type": "AlgorithmKey"})
    assert (made["owner_name"], made["key_label"], made["key_type"]) == ("newcomer", "ci", "AlgorithmKey")
    assert Api(app, made["api_key"]).get("/v1/users/newcomer/algorithms") == []


def test_the_secret_is_shown_once_and_kept_nowhere(admin: Api) -> None:
    made = admin.post("/v1/users/newcomer/keys", {"key_type": "AlgorithmKey"})
    (listed,) = admin.get("/v1/users/newcomer/keys")
    assert listed["api_key"] == listed["api_key_mask"] == made["api_key_mask"]
    assert made["api_key"] not in str(listed)
    row = one_row(ApiKey, id=made["id"])
    assert made["api_key"] not in (row.digest, row.mask, row.label)


@pytest.mark.parametrize("form", ["Simple {}", "simple {}", "Bearer {}", "{}", "  {}  "])
def test_every_form_of_the_header_is_taken(app: Flask, acme: Api, form: str) -> None:
    assert Api(app, None).get("/v1/registries", Authorization=form.format(acme.key)) == []


@pytest.mark.parametrize(
    "header", ["", "Simple", "Simple ", "Simple nobody", "Basic {}", "nobody", "é" * 20, "x" * 600]
)
def test_no_or_an_unknown_key_is_401(app: Flask, acme: Api, header: str) -> None:
    Api(app, None).expect_refusal(401, 2002, "GET", "/v1/registries", Authorization=header.format(acme.key))


def test_without_the_header_it_is_401_before_anything_else_is_looked_at(app: Flask) -> None:
    for method, path in (("GET", "/v1/nowhere"), ("PATCH", "/v1/jobs"), ("POST", "/v1/registries")):
        Api(app, None).expect_refusal(401, 2002, method, path, b"no JSON")


def test_a_revoked_key_is_unknown_from_then_on(admin: Api, app: Flask) -> None:
    made = admin.post("/v1/users/acme/keys", {"key_type": "AlgorithmKey"})
    admin.delete(f"/v1/users/acme/keys/{made['id']}")
    Api(app, made["api_key"]).expect_refusal(401, 2002, "GET", "/v1/registries")
    admin.expect_refusal(404, 5004, "DELETE", f"/v1/users/acme/keys/{made['id']}")
    assert admin.get("/v1/users/acme/keys") == []


def test_owners_make_algorithm_keys_for_themselves_only(acme: Api) -> None:
    assert acme.post("/v1/users/acme/keys", {"key_type": "AlgorithmKey"})["key_type"] == "AlgorithmKey"
    acme.expect_refusal(403, 2001, "POST", "/v1/users/rival/keys", {"key_type": "AlgorithmKey"})
    acme.expect_refusal(403, 2001, "POST", "/v1/admin/users/acme/keys", {"key_type": "AlgorithmKey"})
    for kind in ("PlatformAdminKey", "ManagementKey"):
        acme.expect_refusal(403, 2001, "POST", "/v1/users/acme/keys", {"key_type": kind})


def test_owners_see_and_revoke_their_own_keys_only(admin: Api, acme: Api, rival: Api) -> None:
    (key,) = [row for row in admin.get("/v1/users/rival/keys") if row["key_label"] == "test"]
    acme.expect_refusal(403, 2001, "GET", "/v1/users/rival/keys")
    acme.expect_refusal(403, 2001, "DELETE", f"/v1/users/rival/keys/{key['id']}")
    admin.expect_refusal(404, 5004, "DELETE", f"/v1/users/acme/keys/{key['id']}")
    rival.delete(f"/v1/users/rival/keys/{key['id']}")


def test_a_management_key_is_an_admin_key(admin: Api, app: Flask) -> None:
    made = admin.post("/v1/users/acme/keys", {"key_type": "ManagementKey"})
    assert made["key_type"] == "PlatformAdminKey"
    Api(app, made["api_key"]).make_registry()


def test_keys_of_an_owner_that_is_not_there(admin: Api) -> None:
    admin.expect_refusal(404, 3000, "GET", "/v1/users/nobody/keys")


@pytest.mark.usefixtures("admin", "acme")
def test_an_owner_whose_name_is_anothers_in_image_references_is_refused(admin: Api) -> None:
    admin.expect_refusal(409, 2015, "POST", "/v1/users/ACME/keys", {"key_type": "AlgorithmKey"})


def test_an_owners_first_keys_at_once_make_one_owner(admin: Api) -> None:
    responses = run_concurrently(
        *([lambda: admin.call("POST", "/v1/users/newcomer/keys", {"key_type": "AlgorithmKey"})] * 4)
    )
    assert {response.status_code for response in responses} <= {200, 409}
    assert len(admin.get("/v1/users/newcomer/keys")) == [response.status_code for response in responses].count(200) > 0


def test_a_key_that_may_not_manage_reads_and_changes_nothing(app: Flask, admin: Api, acme: Api) -> None:
    path = acme.make_algorithm("acme")
    reader = owner_api(app, admin, "acme", allow_algo_management=False)
    assert reader.get(path)["name"] == "Hello"
    reader.expect_refusal(403, 2001, "POST", f"{path}/compile", {"commitSha": "a" * 40})
    reader.expect_refusal(403, 2001, "PUT", path, {})
    reader.expect_refusal(403, 2001, "DELETE", path)
    reader.expect_refusal(403, 2001, "POST", "/v1/algorithms/acme", {"name": "New", "details": {"label": "l"}})
    reader.expect_refusal(403, 2001, "POST", "/v1/users/acme/keys", {"key_type": "AlgorithmKey"})


def test_a_key_for_some_algorithms_sees_no_others(app: Flask, admin: Api, acme: Api) -> None:
    listed, other = acme.make_algorithm("acme", "Listed"), acme.make_algorithm("acme", "Other")
    for path in (listed, other):
        acme.post(f"{path}/compile", {"commitSha": "a" * 40})
    for acl, seen in (
        (["acme/Listed"], ["Listed"]),
        (["acme/*"], ["Listed", "Other"]),
        (["rival/Other", "acme/Listed"], ["Listed"]),
        (["rival/*"], []),
        ([], []),
    ):
        narrow = owner_api(app, admin, "acme", algo_acl=acl)
        assert sorted(row["algoname"] for row in narrow.get("/v1/users/acme/algorithms")) == seen
        jobs = narrow.get("/v1/jobs")["results"]
        assert {row["algorithm"] for row in jobs} == {f"acme/{name}" for name in seen}
        for path in (listed, other):
            if path.rpartition("/")[2] in seen:
                narrow.post(f"{path}/compile", {"commitSha": "b" * 40})
            else:
                narrow.expect_refusal(404, 1001, "GET", path)
                narrow.expect_refusal(404, 1001, "POST", f"{path}/compile", {"commitSha": "a" * 40})


@pytest.mark.usefixtures("app", "admin", "acme")
def test_a_narrow_key_makes_no_broader_one(app: Flask, admin: Api) -> None:
    body = {"key_type": "AlgorithmKey"}
    owner_api(app, admin, "acme", algo_acl=["acme/Listed"]).expect_refusal(
        403, 2001, "POST", "/v1/users/acme/keys", body
    )
    mute = owner_api(app, admin, "acme", allow_algo=False)
    mute.expect_refusal(403, 2001, "POST", "/v1/users/acme/keys", body)


@pytest.mark.parametrize(
    ("permissions", "listed"),
    [({}, ["algo://*"]), ({"algo_acl": ["algo://acme/Hello", "acme/*"]}, ["algo://acme/Hello", "algo://acme/*"])],
)
def test_permissions_are_shown_as_they_are_enforced(admin: Api, permissions: dict[str, Any], listed: list[str]) -> None:
    made = admin.post("/v1/users/acme/keys", {"key_type": "AlgorithmKey", "permissions": permissions})
    assert made["permissions"]["algo_acl"] == listed
    assert made["permissions"]["allow_algo"] is True


@pytest.mark.parametrize(
    ("kind", "permissions"),
    [
        ("AlgorithmKey", {"referer_host": "example.com"}),
        ("AlgorithmKey", {"allow_everything": True}),
        ("AlgorithmKey", {"algo_acl": ["acme"]}),
        ("AlgorithmKey", {"algo_acl": ["algo://*/Hello"]}),
        ("AlgorithmKey", {"algo_acl": "algo://*"}),
        ("AlgorithmKey", {"allow_algo": "yes"}),
        ("PlatformAdminKey", {"allow_algo": False}),
        ("PlatformAdminKey", {"algo_acl": ["acme/*"]}),
    ],
)
def test_a_permission_that_cannot_be_enforced_is_refused(admin: Api, kind: str, permissions: dict[str, Any]) -> None:
    admin.expect_refusal(400, 2015, "POST", "/v1/users/acme/keys", {"key_type": kind, "permissions": permissions})


EXISTING = "sim" + "Q7h2Zk9pW4xT1mB8vN3cR6yLd"
"""A key as the platform made them."""


def test_a_key_has_the_form_that_the_platforms_command_line_takes(admin: Api) -> None:
    made = [admin.post("/v1/users/acme/keys", {"key_type": "AlgorithmKey"})["api_key"] for _ in range(20)]
    assert all(re.fullmatch(r"sim[A-Za-z0-9]{25}", key) for key in made)
    assert len(set(made)) == 20


def test_a_key_of_an_older_version_stays_valid(app: Flask, acme: Api) -> None:
    secret = "ls" + "x_Y-" * 10 + "abc"
    with database().writing() as session:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        session.add(ApiKey(owner="acme", label="old", kind=KeyKind.ALGORITHM, digest=digest, mask="lsx_Y-…-abc"))
    assert Api(app, secret).get("/v1/users/acme/algorithms") == acme.get("/v1/users/acme/algorithms")


def test_an_existing_key_is_carried_over_and_not_shown(app: Flask, admin: Api) -> None:
    known_keys.forget()
    body = {"key_type": "AlgorithmKey", "key_label": "ci", "api_key": EXISTING, "permissions": {"algo_acl": ["a/B"]}}
    answer = admin.call("POST", "/v1/admin/users/newcomer/keys", body)
    made = answer.get_json()
    assert (answer.status_code, made["owner_name"], made["permissions"]["algo_acl"]) == (
        200,
        "newcomer",
        ["algo://a/B"],
    )
    assert made["api_key"] == made["api_key_mask"] == "simQ7h…6yLd"
    assert Api(app, EXISTING).get("/v1/users/newcomer/algorithms") == []
    (event,) = admin.get("/v1/audit?action=key.carry_over")["results"]
    assert (event["target_id"], event["owner"]) == (made["id"], "newcomer")
    stored = json.dumps([event, admin.get("/v1/users/newcomer/keys")]) + str(vars(one_row(ApiKey, id=made["id"])))
    assert EXISTING not in answer.get_data(as_text=True) + stored
    assert EXISTING not in str([vars(one_row(AuditEvent, id=event["id"]))])


def test_a_known_key_is_carried_over_by_nobody_and_its_owner_is_not_told(admin: Api, rival: Api) -> None:
    body = {"key_type": "AlgorithmKey", "api_key": EXISTING}
    made = admin.post("/v1/admin/users/newcomer/keys", body)
    known = admin.expect_refusal(409, 2015, "POST", "/v1/admin/users/newcomer/keys", body)
    assert admin.expect_refusal(409, 2015, "POST", "/v1/admin/users/rival/keys", body) == known
    admin.delete(f"/v1/users/newcomer/keys/{made['id']}")
    assert admin.expect_refusal(409, 2015, "POST", "/v1/admin/users/rival/keys", body) == known
    minted = {"key_type": "AlgorithmKey", "api_key": rival.key}
    assert admin.expect_refusal(409, 2015, "POST", "/v1/admin/users/newcomer/keys", minted) == known
    assert "newcomer" not in known


def test_an_existing_key_at_several_places_at_once_is_one_key(admin: Api) -> None:
    body = {"key_type": "AlgorithmKey", "api_key": EXISTING}
    answers = run_concurrently(*([lambda: admin.call("POST", "/v1/admin/users/acme/keys", body)] * 4))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "sim",
        EXISTING[:-1],
        EXISTING + "x" * 101,
        "ls" + EXISTING,
        EXISTING.replace("sim", "SIM"),
        EXISTING[:-1] + "-",
        EXISTING[:-1] + "é",
        EXISTING + "\n",
        EXISTING + "\0",
        "sim" + "a" * 25,
        "sim" + "Ab1" * 9,
        7,
        [EXISTING],
    ],
)
def test_what_is_no_key_or_could_be_guessed_is_refused_without_being_repeated(admin: Api, secret: object) -> None:
    body = {"key_type": "AlgorithmKey", "api_key": secret}
    message = admin.expect_refusal(400, 2015, "POST", "/v1/admin/users/acme/keys", body)
    assert message.startswith("api_key")
    assert not message.endswith("..")
    assert not (isinstance(secret, str) and len(secret) > 3 and secret in message)


def test_a_longer_existing_key_is_taken(app: Flask, admin: Api) -> None:
    secret = EXISTING + "x" * 100
    admin.post("/v1/admin/users/acme/keys", {"key_type": "AlgorithmKey", "api_key": secret})
    assert Api(app, secret).get("/v1/registries") == []


@pytest.mark.parametrize("more", [{}, {"key_type": None}, {"key_type": {}, "key_label": {}}])
def test_an_existing_key_alone_is_an_algorithm_key(admin: Api, more: dict[str, object]) -> None:
    made = admin.post("/v1/admin/users/acme/keys", {"api_key": EXISTING, **more})
    assert (made["key_type"], made["key_label"]) == ("AlgorithmKey", "")
    admin.expect_refusal(400, 2015, "POST", "/v1/admin/users/acme/keys", more)


def test_only_an_administrator_carries_a_key_over(admin: Api, acme: Api) -> None:
    body = {"key_type": "AlgorithmKey", "api_key": EXISTING}
    acme.expect_refusal(403, 2001, "POST", "/v1/admin/users/acme/keys", body)
    for caller in (acme, admin):
        message = caller.expect_refusal(400, 2015, "POST", "/v1/users/acme/keys", body)
        assert "/v1/admin/users/OWNER/keys" in message
