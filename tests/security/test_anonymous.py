"""Attacks of anonymous clients: they learn no names of machines, and do not influence links of others."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from api.resources import health
from shared.db.engine import database
from shared.db.models import Algorithm
from shared.jobs.worker_processes import SWEEP, record_run, refresh_worker
from shared.settings import settings
from tests.rows import HASH, build_commit, one_row
from tests.service.api.invocation import Api

WORKER = "builds@ip-10-0-3-17"
PROBLEM = "The Docker engine at tcp://10.0.3.17:2375 does not answer."
FORGED = "evil.example.com"


@pytest.fixture
def worker(app: Flask) -> None:  # noqa: ARG001 - it must run first
    """A worker that cannot work."""
    with database().writing() as session:
        record_run(session, SWEEP)
        refresh_worker(session, WORKER, ["builds"], PROBLEM)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("authorization", [None, "Simple sim-unknown", "Basic Og==", ""])
def test_readyz_names_no_worker_and_no_problem_to_strangers(app: Flask, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = app.test_client().get("/readyz", headers=headers)
    assert answer.status_code == 503  # there is no Redis here
    told = answer.get_json()
    assert set(told) == {"status", "database", "broker", "seconds_since_sweep", "error"}
    for secret in (WORKER, "10.0.3.17", "engine"):
        assert secret not in answer.get_data(as_text=True)


@pytest.mark.usefixtures("worker")
def test_readyz_names_them_to_administrators_alone(admin: Api, acme: Api) -> None:
    def told(api: Api) -> object:
        headers = {"Authorization": f"Simple {api.key}"}
        return api.app.test_client().get("/readyz", headers=headers).get_json().get("workers")

    assert told(admin) == [{"name": WORKER, "queues": ["builds"], "ready": False, "problem": PROBLEM}]
    assert told(acme) is None


@pytest.mark.parametrize(("path", "function"), [("/metrics", "metrics"), ("/readyz", "live_workers")])
def test_many_anonymous_requests_load_the_database_no_more_than_one(
    app: Flask, monkeypatch: pytest.MonkeyPatch, path: str, function: str
) -> None:
    readers = threading.Semaphore(1)
    read = getattr(health, function)

    def read_alone(session: Session) -> list[object]:
        assert readers.acquire(blocking=False), "another request reads the same at this time"
        try:
            return list(read(session))
        finally:
            readers.release()

    monkeypatch.setattr(health, function, read_alone)
    begin = threading.Barrier(16)

    def ask(_number: int) -> int:
        begin.wait(60)
        return app.test_client().get(path).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) == {200 if path == "/metrics" else 503}


def test_a_shared_reading_is_never_older_than_the_request() -> None:
    numbers = itertools.count()
    shared = health.SharedReading(lambda: next(numbers))
    assert [shared.get() for _ in range(3)] == [0, 1, 2]


@contextmanager
def _settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings.cache_clear()
        yield
    settings.cache_clear()


def _links(api: Api, host: str) -> str:
    """Return everything that a client of this host is told about an algorithm, its versions and jobs."""
    client = api.app.test_client()
    headers = {
        "Authorization": f"Simple {api.key}",
        "X-Forwarded-Host": FORGED,
        "Forwarded": f"host={FORGED}",
        "X-Original-Host": FORGED,
    }
    paths = ("/v1/algorithms/acme/Hello", f"/v1/algorithms/acme/Hello/versions/{HASH}", "/v1/jobs?limit=1")
    answers = [client.get(path, headers=headers, base_url=f"http://{host}/") for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    return "".join(answer.get_data(as_text=True) for answer in answers)


@pytest.fixture
def linked(acme: Api) -> Api:
    """A client of an owner with an algorithm that Longshore hosts, and two jobs."""
    acme.post("/v1/algorithms/acme", {"name": "Hello", "details": {"label": "H"}, "settings": {}})
    build_commit(one_row(Algorithm, owner="acme"))
    acme.post("/v1/algorithms/acme/Hello/version", {})
    return acme


@pytest.mark.parametrize("host", [FORGED, f"{FORGED}:8080", f"localhost.{FORGED}", f"127.0.0.1.{FORGED}", "10.0.0.5"])
def test_a_forged_host_gets_into_no_link_and_no_clone_url(
    linked: Api, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with _settings(monkeypatch, LONGSHORE_HOST="0.0.0.0", LONGSHORE_PORT="8443"):  # noqa: S104 - not bound
        told = _links(linked, host)
    assert host not in told
    assert FORGED not in told
    assert "http://127.0.0.1:8443/git/acme/Hello.git" in told
    assert "http://127.0.0.1:8443/v1/jobs?" in told


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_the_first_client_does_not_decide_where_the_pages_of_others_send_keys(app: Flask, path: str) -> None:
    client = app.test_client()
    for host in (FORGED, "localhost"):
        assert FORGED not in client.get(path, headers={"Host": host}).get_data(as_text=True)


def test_the_public_address_is_the_one_that_the_operator_set(linked: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with _settings(monkeypatch, LONGSHORE_PUBLIC_URL="https://longshore.example.com/"):
        for host in (FORGED, "localhost", "127.0.0.1:9"):
            told = _links(linked, host)
            assert "https://longshore.example.com/git/acme/Hello.git" in told
            assert FORGED not in told
            assert "127.0.0.1:9" not in told


def test_a_tunnel_to_this_machine_gets_links_through_it(linked: Api) -> None:
    assert "http://localhost:9000/git/acme/Hello.git" in _links(linked, "localhost:9000")
