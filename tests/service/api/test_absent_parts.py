"""Parts of the platform's API that are not there: a sentence says so and what to do instead."""

import pytest
from flask import Flask

from tests.service.api.invocation import Api


def test_hosted_data_is_listed_as_empty(acme: Api) -> None:
    empty: dict[str, object] = {"folders": [], "files": [], "marker": None}
    assert acme.get("/v1/data/") == empty
    assert acme.get("/v1/data") == empty


def test_the_listing_needs_a_key(app: Flask) -> None:
    assert app.test_client().get("/v1/data/").status_code == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["data/acme", "data/acme/models/model.pkl", "connector/s3/bucket/key"])
def test_hosted_data_is_refused_with_a_reason(acme: Api, method: str, path: str) -> None:
    assert "not supported yet" in acme.expect_refusal(400, 2015, method, f"/v1/{path}")


def test_clients_that_ask_for_headers_only_find_the_reason_there(app: Flask, acme: Api) -> None:
    answer = app.test_client().head("/v1/data/acme/model.pkl", headers={"Authorization": f"Simple {acme.key}"})
    assert answer.status_code == 400
    assert "not supported yet" in answer.headers["X-Error-Message"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("organizations/some", "no organizations"),
        ("organization/types", "no organizations"),
        ("users/someone", "first key"),
        ("users/someone/event-listeners", "/v1/webhooks"),
        ("secret-provider", "no secret store"),
        ("algorithms/acme/Hello/secrets", "no secret store"),
        ("algorithms/6b0a8a45-2f6e-4a41-8c3b-0e6f5c1f8b6e/secrets/1", "no secret store"),
        ("admin/usage/algorithms", "no usage reports"),
        ("admin/scms/some", "LONGSHORE_SCMS"),
        ("scms/some/oauth/start", "LONGSHORE_SCMS"),
        ("algorithms/acme/Hello/log", "clone the repository"),
        ("config/logo", "docs/compatibility.md"),
    ],
)
def test_other_absent_parts_name_what_there_is_instead(acme: Api, path: str, words: str) -> None:
    assert words in acme.expect_refusal(404, 5004, "GET", f"/v1/{path}")


def test_a_path_that_the_platform_never_had_is_just_unknown(acme: Api) -> None:
    assert acme.expect_refusal(404, 5004, "GET", "/v1/dates/").startswith("There is nothing at this path")
