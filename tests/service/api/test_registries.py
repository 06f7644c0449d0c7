"""`/v1/registries`."""

import json
import re

import pytest

from shared.models import ImagePush, Job, JobState, PushState, Registry
from shared.registries import open_own
from shared.registry.credentials import Credentials
from shared.sealing import keyring
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, fresh, push, the

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PAIR = {"registry_username": "pusher", "registry_password": "open sesame"}


def credentials_of(registry_id: str) -> Credentials | None:
    return open_own(keyring(), the(Registry, id=registry_id))


def test_a_registry_is_recorded_and_read(admin, acme):
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
        "max_pushes": None,
        "paused": None,
        "throttled_until": None,
    }
    assert acme.get(f"/v1/registries/{registry_id}")["name"] == "Scanned"
    assert [row["id"] for row in acme.get("/v1/registries")] == [registry_id]
    assert credentials_of(registry_id) == Credentials("pusher", "open sesame")


def test_a_docker_document_gives_each_registry_its_own_credentials_only(admin):
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


def test_no_answer_shows_a_credential(admin):
    registry_id = admin.make_registry(**PAIR)
    for answer in (
        admin.call("GET", "/v1/registries"),
        admin.call("GET", f"/v1/registries/{registry_id}"),
        admin.call("PUT", f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com", **PAIR}),
        admin.call("DELETE", f"/v1/registries/{registry_id}"),
    ):
        assert b"sesame" not in answer.data
        assert b"pusher" not in answer.data


def test_the_newest_is_listed_first(admin):
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
def test_registry_auth_is_taken_in_place_of_the_pair(admin, auth):
    assert credentials_of(admin.make_registry(registry_auth=auth)) == Credentials("pusher", "open sesame")


def test_a_long_token_is_taken_as_a_password(admin):
    registry_id = admin.make_registry(registry_username="u" * 256, registry_password="p" * 8192)
    assert credentials_of(registry_id) == Credentials("u" * 256, "p" * 8192)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, Credentials("pusher", "open sesame")),
        ({"name": "Other"}, Credentials("pusher", "open sesame")),
        ({"registry_username": "new", "registry_password": "word"}, Credentials("new", "word")),
        ({"registry_username": None, "registry_password": None}, None),
        ({"registry_auth": None}, None),
        ({"registry_url": "other.example.com"}, None),
        ({"verify_tls": False}, None),
        ({"registry_url": "other.example.com", **PAIR}, Credentials("pusher", "open sesame")),
    ],
)
def test_a_change_keeps_or_removes_credentials(admin, fields, kept):
    registry_id = admin.make_registry(**PAIR)
    shown = admin.put(f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com", **fields})
    assert shown["has_credentials"] == (kept is not None)
    assert credentials_of(registry_id) == kept


def test_options_that_are_left_out_stay(admin):
    registry_id = admin.make_registry("http://registry.example.com", plain_http=True, name="Plain")
    shown = admin.put(f"/v1/registries/{registry_id}", {"registry_url": "http://registry.example.com/team"})
    assert (shown["plain_http"], shown["name"]) == (True, "Plain")


def test_a_deleted_registry_is_gone_and_its_pushes_end(admin):
    registry_id = admin.make_registry(**PAIR)
    job = push(build_commit(make_algorithm()), the(Registry, id=registry_id))
    admin.delete(f"/v1/registries/{registry_id}")
    assert admin.get("/v1/registries") == []
    admin.expect_refusal(404, 5004, "GET", f"/v1/registries/{registry_id}")
    admin.expect_refusal(404, 5004, "DELETE", f"/v1/registries/{registry_id}")
    assert (fresh(job).state, the(ImagePush, id=job.push_id).state) == (JobState.FAILED, PushState.FAILED)
    assert the(Registry, id=registry_id).credentials is None
    assert the(Job, id=job.id).error_message == "The registry was deleted."


def test_a_check_of_a_registry_that_is_not_there_says_so(admin):
    registry_id = admin.make_registry("localhost:1")
    checked = admin.post(f"/v1/registries/{registry_id}/check", PAIR)
    assert (checked["reachable"], checked["authenticated"], checked["can_push"]) == (False, False, False)
    assert "localhost:1" in checked["message"]
    assert credentials_of(registry_id) is None


def test_a_check_with_credentials_whose_key_is_gone_says_so(admin):
    registry_id = admin.make_registry("localhost:1", **PAIR)
    registry = the(Registry, id=registry_id)
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
def test_changes_need_an_admin_key(admin, acme, method, path):
    path = path.format(id=admin.make_registry())
    acme.expect_refusal(403, 2001, method, path, {"registry_url": "registry.example.com"})
