"""The audit trail: who did what, when, from where."""

from typing import Any

import pytest
from flask import Flask

from shared.db.models import Algorithm, AuditEvent
from tests.git_service import make_algorithm
from tests.rows import build_commit, end_badly, make_claim, make_registry, one_row, push
from tests.service.api.invocation import Api, owner_api

PAIR = {"registry_username": "pusher", "registry_password": "open sesame"}


def trail(admin: Api, **filters: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    events: list[dict[str, Any]] = admin.get(f"/v1/audit?{query}")["results"]
    return events


def actions(admin: Api, **filters: str) -> list[str]:
    return [entry["action"] for entry in trail(admin, **filters)]


def test_what_is_done_to_a_registry_is_written_down_without_its_secrets(admin: Api) -> None:
    registry_id = admin.make_registry(**PAIR)
    admin.put(f"/v1/registries/{registry_id}", {"registry_url": "registry.example.com", "name": "new"})
    admin.post(f"/v1/registries/{registry_id}/pause", {"reason": "moving"})
    admin.post(f"/v1/registries/{registry_id}/resume")
    admin.delete(f"/v1/registries/{registry_id}")
    entries = trail(admin, target=registry_id)
    assert [entry["action"].removeprefix("registry.") for entry in entries] == [
        *("delete", "resume", "pause", "update", "create")
    ]
    assert {entry["actor"] for entry in entries} == {"admin"}
    assert entries[-1]["detail"] == {
        "url": "registry.example.com",
        "credentials": True,
        "push_credentials": False,
        "default": False,
    }
    assert entries[-2]["detail"]["given"] == ["name", "registry_url"]
    assert "sesame" not in str(entries)
    assert "pusher" not in str(entries)


def test_pushes_compiles_and_cancels_are_their_owners(admin: Api, acme: Api) -> None:
    path = acme.make_algorithm("acme")
    build = build_commit(one_row(Algorithm, owner="acme"))
    registry = make_registry()
    body = {"registry_push_credentials": {"registry_id": registry.id, **PAIR}}
    pushed = acme.call("POST", f"{path}/versions/{build.commit_sha}/registry", body)
    acme.delete(f"{path}/versions/{build.commit_sha}/registry/{registry.id}")
    compiled = acme.call("POST", f"{path}/compile", {"commitSha": "a" * 40})
    acme.delete(f"/v1/jobs/{compiled.headers['X-Job-Id']}")
    entries = trail(admin, owner="acme", actor="acme")
    assert [entry["action"] for entry in entries] == [
        *("job.cancel", "compile", "push.cancel", "push", "algorithm.create")
    ]
    said = entries[3]
    assert said["target_id"] == pushed.headers["X-Job-Id"]
    assert (said["detail"]["to"], said["detail"]["own_credentials"]) == ([registry.id], True)
    assert said["request_id"] == pushed.headers["X-Request-Id"]
    assert "sesame" not in str(entries)


def test_keys_and_retries(admin: Api) -> None:
    key = admin.post("/v1/users/acme/keys", {"key_type": "AlgorithmKey", "key_label": "laptop"})
    admin.delete(f"/v1/users/acme/keys/{key['id']}")
    end_badly(make_claim(push(build_commit(make_algorithm()), make_registry())))
    retried = admin.call("POST", "/v1/pushes/retry", {})
    assert actions(admin) == ["pushes.retry", "key.revoke", "key.create"]
    assert trail(admin, target=retried.headers["X-Job-Id"])[0]["detail"] == {"number": 1, "status": "failed"}
    assert key["api_key"] not in str(trail(admin))


def test_a_repeat_is_written_down_once_and_a_refusal_not_at_all(admin: Api, acme: Api) -> None:
    path = acme.make_algorithm("acme")
    for _ in range(2):
        acme.call("POST", f"{path}/compile", {"commitSha": "a" * 40}, Idempotency_Key="again")
    acme.call("POST", f"{path}/compile", {"commitSha": "no hash"})
    assert actions(admin, action="compile") == ["compile"]


def test_what_somebody_was_not_allowed_is_written_down_too(admin: Api, acme: Api) -> None:
    acme.expect_refusal(403, 2001, "POST", "/v1/registries", {"registry_url": "registry.example.com", **PAIR})
    acme.expect_refusal(403, 2001, "GET", "/v1/audit")
    (entry,) = trail(admin, action="denied")
    assert (entry["actor"], entry["detail"]["path"]) == ("acme", "/v1/registries")
    assert "sesame" not in str(entry)


def test_the_trail_is_filtered_and_paged(admin: Api) -> None:
    ids = [admin.make_registry(f"r{number}.example.com") for number in range(3)]
    admin.delete(f"/v1/registries/{ids[0]}")
    page = admin.get("/v1/audit?action=registry.&limit=3")
    assert [entry["target_id"] for entry in page["results"]] == [ids[0], ids[2], ids[1]]
    rest = admin.get(f"/v1/audit?action=registry.&limit=3&marker={page['marker']}")
    assert [entry["target_id"] for entry in rest["results"]] == [ids[0]]
    times = [entry["time"] for entry in trail(admin)]
    assert len(trail(admin, since=times[-1])) == 4
    assert len(trail(admin, until=times[-1])) == 0
    admin.expect_refusal(400, 2015, "GET", "/v1/audit?since=yesterday")


def test_it_is_written_with_what_it_tells_of_or_not_at_all(admin: Api) -> None:
    taken_name = {"registry_url": "registry.example.com", "ca_certificate": "none"}
    admin.expect_refusal(400, 2015, "POST", "/v1/registries", taken_name)
    assert trail(admin) == []


@pytest.mark.parametrize(
    ("peer", "forwarded", "gateway", "proxies", "address"),
    [
        ("198.51.100.7", None, "127.0.0.0/8", "", "198.51.100.7"),
        ("198.51.100.7", "203.0.113.9", "127.0.0.0/8", "", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9", "127.0.0.0/8", "", "203.0.113.9"),
        ("127.0.0.1", "192.0.2.1, 203.0.113.9", "127.0.0.0/8", "", "203.0.113.9"),
        ("127.0.0.1", "192.0.2.1, 203.0.113.9, 10.0.0.1", "127.0.0.0/8", "10.0.0.0/8", "203.0.113.9"),
        ("127.0.0.1", "forged, 203.0.113.9", "127.0.0.0/8", "10.0.0.0/8", "203.0.113.9"),
        ("172.18.0.5", "203.0.113.9", "172.16.0.0/12", "", "203.0.113.9"),
    ],
)
def test_where_a_request_came_from(
    admin: Api,
    monkeypatch: pytest.MonkeyPatch,
    peer: str,
    forwarded: str | None,
    gateway: str,
    proxies: str,
    address: str,
) -> None:
    from shared.settings import settings

    monkeypatch.setenv("LONGSHORE_GATEWAY_NETWORKS", gateway)
    monkeypatch.setenv("LONGSHORE_TRUSTED_PROXIES", proxies)
    settings.cache_clear()
    headers = {"Authorization": f"Simple {admin.key}"} | ({"X-Forwarded-For": forwarded} if forwarded else {})
    made = admin.app.test_client().post(
        "/v1/registries",
        json={"registry_url": "registry.example.com"},
        headers=headers,
        environ_base={"REMOTE_ADDR": peer},
    )
    assert one_row(AuditEvent, target_id=made.get_json()["id"]).address == address


def test_a_key_that_may_not_manage_is_told_apart(app: Flask, admin: Api) -> None:
    reader = owner_api(app, admin, "acme", allow_algo_management=False)
    body = {"name": "Hello", "details": {"label": "Hello"}, "settings": {}}
    reader.expect_refusal(403, 2001, "POST", "/v1/algorithms/acme", body)
    assert trail(admin, action="denied")[0]["key_id"] == trail(admin, action="denied")[0]["target_id"]
