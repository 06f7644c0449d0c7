"""Paths outside of the resources, and what all responses have in common."""

import re

from flask import Flask

from shared.db.engine import database
from shared.jobs.worker_processes import SWEEP, record_run, refresh_worker
from tests.service.api.invocation import Api


def test_alive_without_a_key(app: Flask) -> None:
    assert Api(app, None).get("/healthz") == {"status": "alive"}


def test_ready_says_what_answers_and_what_keeps_workers_from_working(app: Flask, admin: Api) -> None:
    with database().writing() as session:
        record_run(session, SWEEP)
        refresh_worker(session, "w1", ["builds"], "The Docker engine does not response.")
    response = app.test_client().get("/readyz", headers={"Authorization": f"Simple {admin.key}"})
    assert response.status_code == 503  # there is no Redis here
    said = response.get_json()
    error = said.pop("error")
    assert error["code"] == 2015
    assert "Redis" in error["message"]
    assert said == {
        "status": "not ready",
        "database": "reachable",
        "broker": "does not respond",
        "seconds_since_sweep": 0,
        "workers": [
            {"name": "w1", "queues": ["builds"], "ready": False, "problem": "The Docker engine does not response."}
        ],
    }


def test_every_route_is_described(app: Flask) -> None:
    described = Api(app, None).get("/openapi.json")
    assert described["openapi"].startswith("3.")
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/v1/"):
            path = re.sub(r"<(?:[a-z_]+:)?([a-z_]+)>", r"{\1}", rule.rule)
            methods = {method.lower() for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
            assert methods <= set(described["paths"][path]), rule


def test_the_pages_need_nothing_from_outside(app: Flask) -> None:
    page = app.test_client().get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.get_data(as_text=True))
    assert addresses
    for address in addresses:
        assert address.startswith("/"), address
        with app.test_client().get(address) as response:
            assert response.status_code == 200, address


NO_ADDRESSES = [
    ("GET", "/", 404, 5004),
    ("GET", "/v1/nowhere", 404, 5004),
    ("GET", "/v1//jobs", 404, 5004),
    ("GET", "/v1//jobs/", 404, 5004),
    ("GET", "/v1/", 404, 5004),
    ("GET", "/v1/jobs//events", 404, 5004),
    ("POST", "/v1/algo/", 404, 5004),
    ("POST", "/v1/algo/algo://", 404, 5004),
    ("GET", "/healthz/", 404, 5004),
    ("GET", "/v1/algo/acme/Hello", 405, 2015),
    ("GET", "/v1/jobs/%00", 400, 2015),
    ("GET", "/v1/jobs?algorithm=%00", 400, 2015),
    ("GET", "/v1/jobs?%00=1", 400, 2015),
    ("GET", "/v1/jobs/%ff%fe", 404, 5004),
    ("GET", "/v1/jobs/" + "x" * 5000, 404, 5004),
    ("GET", "/v1/jobs/%ed%a0%80", 404, 5004),
    ("GET", "/v1/registries/..", 404, 5004),
    ("PATCH", "/v1/jobs", 405, 2015),
    ("POST", "/v1/jobs", 405, 2015),
    ("DELETE", "/v1/registries", 405, 2015),
    ("BREW", "/v1/registries", 405, 2015),
    ("GET", "/docs/static/../../etc/passwd", 404, 5004),
    ("GET", "/docs/static/%2e%2e/%2e%2e/etc/passwd", 404, 5004),
]


def test_what_is_no_address(admin: Api) -> None:
    for method, path, status, code in NO_ADDRESSES:
        response = admin.call(method, path)
        assert (response.status_code, response.get_json()["error"]["code"]) == (status, code), (method, path[:60])


def test_a_method_that_is_not_taken_names_those_that_are(admin: Api) -> None:
    response = admin.call("PATCH", "/v1/registries")
    assert {"GET", "POST"} <= set(re.split(r",\s*", response.headers["Allow"]))


def test_a_request_keeps_the_id_that_it_brings(app: Flask) -> None:
    for given, kept in (("build-42.a_b", True), ("short", False), ("a b c d e f", False), ("x" * 65, False)):
        response = Api(app, None).call("GET", "/v1/jobs", X_Request_Id=given)
        assert (response.headers["X-Request-Id"] == given) == kept


def test_answers_are_kept_by_no_cache(admin: Api) -> None:
    assert admin.call("GET", "/v1/registries").headers["Cache-Control"] == "no-store"


def test_a_database_that_does_not_answer_is_503(admin: Api) -> None:
    with database().writing() as session:
        session.connection().exec_driver_sql("ALTER TABLE registries RENAME TO away")
    try:
        response = admin.app.test_client().get("/v1/registries", headers={"Authorization": admin.key or ""})
        assert response.status_code in (500, 503)  # a missing table is an OperationalError in SQLite only
        assert set(response.get_json()["error"]) == {"id", "code", "message"}
        assert "away" not in response.get_data(as_text=True)
    finally:
        with database().writing() as session:
            session.connection().exec_driver_sql("ALTER TABLE away RENAME TO registries")
