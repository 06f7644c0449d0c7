"""`/v1/registries`."""

import json
import re
from typing import Any

import pytest

from shared.db.engine import database
from shared.db.models import Algorithm, ImagePush, Job, JobState, PauseCause, PushState, Registry
from shared.encryption import keyring
from shared.registries.circuit_breaker import record_failure
from shared.registries.credentials import decrypt_registry_credentials
from shared.registry.credentials import Credentials
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, fresh, one_row, publish, push, try_claim
from tests.service.api.invocation import Api

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PAIR = {"registry_username": "pusher", "registry_password": "open sesame"}


def credentials_of(registry_id: str) -> Credentials | None:
    return decrypt_registry_credentials(keyring(), one_row(Registry, id=registry_id))


def test_a_registry_is_recorded_and_read(admin: Api, acme: Api) -> None:
    made = admin.post("/v1/registries", {"registry_url": "registry.example.com/team", "name": "Scanned", **PAIR})
    assert TIME.fullmatch(made.pop("created_at"))
    assert TIME.fullmatch(made.pop("updated_at"))
    registry_id = made.pop("id")
    assert made == {
        "name": "Scanned",
        "registry_url": "registry.example.com/team",
        "has_credentials": True,
        "verify_tls": True,
        "ca_certificate": None,
        "plain_http": False,
        "transport": None,
        "proxy_url": None,
        "max_pushes": None,
        "default": False,
        "has_push_credentials": False,
        "paused": None,
        "throttled_until": None,
        "unpushed_versions": 0,
    }
    assert acme.get(f"/v1/registries/{registry_id}")["name"] == "Scanned"
    assert [row["id"] for row in acme.get("/v1/registries")] == [registry_id]
    assert credentials_of(registry_id) == Credentials("pusher", "open sesame")


def test_a_docker_document_gives_each_registry_its_own_credentials_only(admin: Api) -> None:
    document = json.dumps(
        {
            "auths": {
                "other.example.com": {"username": "other", "password": "not for here"},
                "registry.example.com": {"username": "pusher", "password": "open sesame"},
            }
        }
    )
    body = {"registry_url": "registry.example.com/team", "registry_auth": document}
    made = admin.post("/v1/registries", body)
    assert credentials_of(made["id"]) == Credentials("pusher", "open sesame")
    refused = admin.call("POST", "/v1/registries", {**body, "registry_url": "third.example.com"})
    assert refused.status_code == 400
    assert "not for here" not in refused.get_data(as_text=True)


def test_no_answer_shows_a_credential(admin: Api) -> None:
    registry_id = admin.make_registry(**PAIR)
    for response in (
        admin.call("GET", "/v1/registries"),
        admin.call("GET", f"/v1/registries/{registry_id}"),
        admin.call("PUT", f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com", **PAIR}),
        admin.call("DELETE", f"/v1/registries/{registry_id}"),
    ):
        assert b"sesame" not in response.data
        assert b"pusher" not in response.data


def test_the_newest_is_listed_first(admin: Api) -> None:
    first, second = admin.make_registry("a.example.com"), admin.make_registry("b.example.com")
    assert [row["id"] for row in admin.get("/v1/registries")] == [second, first]


@pytest.mark.parametrize(
    "auth",
    [
        "cHVzaGVyOm9wZW4gc2VzYW1l",
        '{"auths": {"registry.example.com": {"auth": "cHVzaGVyOm9wZW4gc2VzYW1l"}}}',
        '{"auths": {"registry.example.com": {"username": "pusher", "password": "open sesame"}}}',
    ],
)
def test_registry_auth_is_taken_in_place_of_the_pair(admin: Api, auth: str) -> None:
    assert credentials_of(admin.make_registry(registry_auth=auth)) == Credentials("pusher", "open sesame")


def test_a_long_token_is_taken_as_a_password(admin: Api) -> None:
    registry_id = admin.make_registry(registry_username="u" * 256, registry_password="p" * 8192)
    assert credentials_of(registry_id) == Credentials("u" * 256, "p" * 8192)


def test_the_first_registry_ever_is_answered_with_the_versions_that_stop_to_run(admin: Api, acme: Api) -> None:
    for name in ("Published", "Compiled", "Deleted"):
        acme.make_algorithm("acme", name)
        build_commit(one_row(Algorithm, name=name))
        if name != "Compiled":
            publish(one_row(Algorithm, name=name))
    acme.delete("/v1/algorithms/acme/Deleted")
    first = admin.post("/v1/registries", {"registry_url": "registry.example.com"})
    assert first["unpushed_versions"] == 1
    assert "unpushed_versions" not in admin.get(f"/v1/registries/{first['id']}")
    admin.delete(f"/v1/registries/{first['id']}")
    assert "unpushed_versions" not in admin.post("/v1/registries", {"registry_url": "registry.example.com"})


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, Credentials("pusher", "open sesame")),
        ({"name": "Other"}, Credentials("pusher", "open sesame")),
        ({"registry_username": "new", "registry_password": "word"}, Credentials("new", "word")),
        ({"registry_username": None, "registry_password": None}, None),
        ({"registry_auth": None}, None),
        ({"registry_username": "", "registry_password": ""}, None),
        ({"registry_auth": "", "registry_username": "new", "registry_password": "word"}, Credentials("new", "word")),
        ({"registry_url": "other.example.com"}, None),
        ({"verify_tls": False}, None),
        ({"proxy_url": "http://proxy.example.com:3128"}, None),
        ({"transport": "engine"}, Credentials("pusher", "open sesame")),
        ({"registry_url": "other.example.com", **PAIR}, Credentials("pusher", "open sesame")),
    ],
)
def test_a_change_keeps_or_removes_credentials(admin: Api, fields: dict[str, Any], kept: Credentials | None) -> None:
    registry_id = admin.make_registry(**PAIR)
    shown = admin.put(f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com", **fields})
    assert shown["has_credentials"] == (kept is not None)
    assert credentials_of(registry_id) == kept


def test_the_way_to_a_registry_is_recorded(admin: Api) -> None:
    way = {"transport": "engine", "proxy_url": "http://proxy.example.com:3128"}
    registry_id = admin.make_registry(**way)
    shown = admin.get(f"/v1/registries/{registry_id}")
    assert {name: shown[name] for name in way} == way
    shown = admin.put(
        f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com", "transport": None, "proxy_url": None}
    )
    assert (shown["transport"], shown["proxy_url"]) == (None, None)


def test_options_that_are_left_out_stay(admin: Api) -> None:
    registry_id = admin.make_registry("http://registry.example.com", plain_http=True, name="Plain")
    shown = admin.put(f"/v1/registries/{registry_id}", {"registry_url": "http://registry.example.com/team"})
    assert (shown["plain_http"], shown["name"]) == (True, "Plain")


def test_plain_http_does_not_stay_where_the_new_address_forbids_it(admin: Api) -> None:
    registry_id = admin.make_registry("http://registry.example.com", plain_http=True)
    shown = admin.put(f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com"})
    assert (shown["plain_http"], shown["registry_url"]) == (False, "registry.example.com")


def test_a_deleted_registry_is_gone_and_its_pushes_end(admin: Api) -> None:
    registry_id = admin.make_registry(**PAIR)
    job = push(build_commit(make_algorithm()), one_row(Registry, id=registry_id))
    admin.delete(f"/v1/registries/{registry_id}")
    assert admin.get("/v1/registries") == []
    admin.expect_refusal(404, 5004, "GET", f"/v1/registries/{registry_id}")
    admin.expect_refusal(404, 5004, "DELETE", f"/v1/registries/{registry_id}")
    assert (fresh(job).state, one_row(ImagePush, id=job.push_id).state) == (JobState.FAILED, PushState.FAILED)
    assert one_row(Registry, id=registry_id).credentials is None
    assert one_row(Job, id=job.id).error_message == "The registry was deleted."


def test_a_check_of_a_registry_that_is_not_there_says_so(admin: Api) -> None:
    registry_id = admin.make_registry("localhost:1")
    checked = admin.post(f"/v1/registries/{registry_id}/check", PAIR)
    assert (checked["reachable"], checked["authenticated"], checked["can_push"]) == (False, False, False)
    assert "localhost:1" in checked["message"]
    assert credentials_of(registry_id) is None


def test_a_check_with_credentials_whose_key_is_gone_says_so(admin: Api) -> None:
    registry_id = admin.make_registry("localhost:1", **PAIR)
    registry = one_row(Registry, id=registry_id)
    change(registry, credentials="gone." + (registry.credentials or "").partition(".")[2])
    message = admin.expect_refusal(409, 2015, "POST", f"/v1/registries/{registry_id}/check")
    assert "'gone'" in message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/registries"),
        ("PUT", "/v1/registries/{id}"),
        ("DELETE", "/v1/registries/{id}"),
        ("POST", "/v1/registries/{id}/check"),
    ],
)
def test_changes_need_an_admin_key(admin: Api, acme: Api, method: str, path: str) -> None:
    path = path.format(id=admin.make_registry())
    acme.expect_refusal(403, 2001, method, path, {"registry_url": "registry.example.com"})


def test_a_registry_is_paused_and_resumed_and_its_pushes_say_so(admin: Api, acme: Api) -> None:
    registry_id = admin.make_registry()
    job = push(build_commit(make_algorithm()), one_row(Registry, id=registry_id))
    paused = admin.post(f"/v1/registries/{registry_id}/pause", {"reason": "moving house"})
    assert (paused["paused"]["by"], paused["paused"]["reason"]) == ("operator", "Moving house.")
    assert paused["paused"]["next_try_at"] is None
    (listed,) = admin.get("/v1/pushes?status=queued")["results"]
    assert "paused by an operator" in listed["status_message"]
    assert "Moving house." in listed["status_message"]
    assert admin.post(f"/v1/registries/{registry_id}/pause")["paused"] == paused["paused"]
    resumed = admin.post(f"/v1/registries/{registry_id}/resume")
    assert resumed["paused"] is None
    (listed,) = admin.get("/v1/pushes?status=queued")["results"]
    assert "paused" not in listed["status_message"]
    assert try_claim(job) is not None
    for call in ("pause", "resume"):
        acme.expect_refusal(403, 2001, "POST", f"/v1/registries/{registry_id}/{call}")
        admin.expect_refusal(404, 5004, "POST", f"/v1/registries/none/{call}")


def test_a_registry_that_was_mended_is_tried_again_at_once(admin: Api) -> None:
    registry_id = admin.make_registry(**PAIR)
    registry = one_row(Registry, id=registry_id)
    with database().writing() as session:
        record_failure(session, registry_id, PauseCause.AUTH, "Refused.", pause_after=1, probe_delays=(30,))
    assert admin.get(f"/v1/registries/{registry_id}")["paused"]["by"] == "auth"
    changed = admin.put(f"/v1/registries/{registry_id}", {"registry_url": registry.registry_url, **PAIR})
    assert changed["paused"] is None


def test_a_change_does_not_resume_what_an_operator_paused(admin: Api) -> None:
    registry_id = admin.make_registry()
    admin.post(f"/v1/registries/{registry_id}/pause")
    changed = admin.put(f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com", "max_pushes": 3})
    assert (changed["paused"]["by"], changed["max_pushes"]) == ("operator", 3)


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", 10_001, True])
def test_a_number_of_pushes_is_a_whole_one(admin: Api, number: float | str | bool) -> None:
    body = {"registry_url": "registry.example.com", "max_pushes": number}
    admin.expect_refusal(400, 2015, "POST", "/v1/registries", body)
