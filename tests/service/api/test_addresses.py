"""Addresses as published clients write them, names that are none, limits, and texts that stand for nothing."""

import re

import pytest

from shared.db.models import Algorithm, ImagePush, Job
from tests.rows import HASH, build_commit, end_badly, make_claim, make_registry, one_row, push
from tests.service.api.invocation import ELSEWHERE, Api

UNKNOWN = "3f1c2e88-4b7d-4a56-9c0e-8d2b6a7f5e13"
"""Of nobody. It is part of names of tests, which must be the same in each process of pytest-xdist."""
EMPTY_PAIR = {"registry_username": "", "registry_password": ""}


def test_slashes_at_the_end_of_an_address_change_nothing(acme: Api, admin: Api, algorithm: Algorithm) -> None:
    registry = admin.make_registry()
    paths = ["/v1/algorithms/acme/Hello", "/v1/users/acme/algorithms", "/v1/registries", f"/v1/registries/{registry}"]
    paths += [f"/v1/algorithms/{algorithm.id}", f"/v1/algorithms/{algorithm.id}/builds", "/v1/jobs?limit=1"]
    for path in paths:
        address, query, parameters = path.partition("?")
        expected = admin.get(path)
        assert admin.get(f"{address}/{query}{parameters}") == expected
        assert admin.get(f"{address}//{query}{parameters}") == expected
    made = acme.post("/v1/algorithms/acme/", {"name": "Second", "details": {"label": "x"}, "source": ELSEWHERE})
    acme.post(f"/v1/algorithms/{made['id']}/compile/", {"commitSha": HASH})
    acme.delete("/v1/algorithms/acme/Second/")
    assert acme.get("/v1/users/acme/algorithms/") == acme.get("/v1/users/acme/algorithms")
    page = admin.get("/v1/jobs/?limit=1")
    assert page["next_link"] is None or "/v1/jobs?" in page["next_link"]


@pytest.mark.usefixtures("algorithm")
def test_an_id_is_never_read_as_an_owner(admin: Api) -> None:
    hello = one_row(Algorithm, name="Hello").id
    for known in (hello, hello.upper(), UNKNOWN):
        for name in ("secrets", "anything", "Hello"):
            for method in ("GET", "PUT", "DELETE"):
                message = admin.expect_refusal(404, 5004, method, f"/v1/algorithms/{known}/{name}", {})
                assert "No such algorithm" not in message
    for path in ("versions", f"versions/{HASH}", "builds"):
        admin.expect_refusal(404, 1009, "GET", f"/v1/algorithms/{UNKNOWN}/{path}")
    assert admin.get(f"/v1/algorithms/{hello}/versions")["results"] == []
    admin.expect_refusal(404, 1009, "POST", f"/v1/algo/{UNKNOWN}/secrets", 1)
    admin.expect_refusal(405, 2015, "POST", f"/v1/algorithms/{UNKNOWN}", {"name": "N", "details": {"label": "x"}})


@pytest.mark.parametrize("name", [UNKNOWN, "a" * 8 + UNKNOWN[8:], UNKNOWN.replace("-", "")])
def test_no_owner_has_the_form_of_an_id(admin: Api, name: str) -> None:
    for path in (f"/v1/users/{name}/keys", f"/v1/admin/users/{name}/keys"):
        assert "name of an owner" in admin.expect_refusal(400, 2015, "POST", path, {"key_type": "AlgorithmKey"})


def test_a_limit_above_the_most_is_the_most(acme: Api, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.pagination.MAX_LIMIT", 2)
    build = build_commit(algorithm)
    for _ in range(3):
        push(build, make_registry())
    for limit, number in {"1": 1, "02": 2, "3": 2, "1000": 2, "9" * 5000: 2}.items():
        for path in ("/v1/jobs", "/v1/pushes"):
            assert len(acme.get(f"{path}?limit={limit}")["results"]) == number


class TestEmptyTextsAreNoCredentials:
    """An empty user name and password, as clients with two required fields send them."""

    def test_of_a_registry(self, admin: Api) -> None:
        for fields in (EMPTY_PAIR, {"registry_auth": ""}, {**EMPTY_PAIR, "registry_auth": ""}):
            registry_id = admin.make_registry("localhost:1", **fields)
            assert admin.get(f"/v1/registries/{registry_id}")["has_credentials"] is False
            assert admin.post(f"/v1/registries/{registry_id}/check", fields)["reachable"] is False
        for half in ({"registry_username": "", "registry_password": "x"}, {"registry_username": "x"}):
            body = {"registry_url": "registry.example.com", **half}
            message = admin.expect_refusal(400, 2015, "POST", "/v1/registries", body)
            assert "go together" in message

    def test_of_a_push_and_of_a_retry(self, admin: Api, acme: Api, algorithm: Algorithm) -> None:
        registry_id = admin.make_registry(registry_username="pusher", registry_password="word")
        body = {"registry_id": registry_id, **EMPTY_PAIR}
        acme.post("/v1/algorithms/acme/Hello/compile", {"commitSha": HASH, "registry_push_credentials": body})
        assert one_row(Job, kind="push").credentials is None
        acme.delete(f"/v1/jobs/{one_row(Job, kind='push').id}")
        build = build_commit(algorithm, "f" * 40)
        acme.post(f"/v1/algorithms/acme/Hello/versions/{'f' * 40}/registry", {"registry_push_credentials": body})
        row = one_row(ImagePush, version_id=build.version_id)
        job = one_row(Job, id=row.job_id)
        assert job.credentials is None
        end_badly(make_claim(job))
        assert admin.post("/v1/pushes/retry", {"algorithm": "acme/Hello", **EMPTY_PAIR})["enqueued"] == 1

    def test_of_a_repository(self, acme: Api) -> None:
        empty = {"username": "", "password": ""}
        acme.make_algorithm("acme", source={**ELSEWHERE, "credentials": empty})
        assert one_row(Algorithm, name="Hello").source_credentials is None
        body = {"name": "Hosted", "details": {"label": "x"}, "source": {"credentials": empty}}
        assert acme.post("/v1/algorithms/acme", body)["source"]["scm"]["provider"] == "internal"
        acme.put("/v1/algorithms/acme/Hosted", {"source": {"credentials": empty}})
        half = {"source": {**ELSEWHERE, "credentials": {"username": "x", "password": ""}}}
        acme.expect_refusal(400, 2015, "PUT", "/v1/algorithms/acme/Hello", half)

    @pytest.mark.parametrize("header", ["", " ", "Simple", "Simple ", "Bearer ", "simple  "])
    def test_of_a_request(self, admin: Api, header: str) -> None:
        for method, path in (("GET", "/v1/registries"), ("POST", "/v1/algo/acme/Hello/")):
            message = Api(admin.app, None).expect_refusal(401, 2002, method, path, Authorization=header)
            assert re.search(r"needs an API key.*Authorization: Simple KEY", message)


def test_an_algorithm_may_have_the_name_of_a_path_that_only_ids_have(acme: Api) -> None:
    for name in ("errors", "secrets", "registry"):
        assert acme.get(acme.make_algorithm("acme", name))["name"] == name
