"""Reads stay fast with a long history: EXPLAIN is run on the statements that the code executes.

PostgreSQL reports the number of rows that it read, based on its statistics; SQLite, which has none, the tables that it
scans.
"""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.sql.selectable import Select

from api.app import create_app
from benchmarks.history import PUSH_JOBS, RECORDED, History, hash_of, id_of, make_history
from shared.db.engine import database
from shared.db.models import Base, Job, KeyKind
from shared.jobs.claims import claim_job
from shared.jobs.dependencies import resolve_overdue
from shared.jobs.due import messages_for_registry, take_due_messages
from shared.jobs.fair_queue import next_pushes
from shared.jobs.leases import messages_after_release
from shared.jobs.stalls import lost_jobs, release_abandoned_locks, report_no_progress, report_unclaimed
from shared.keys import known_keys
from shared.pushes.drift import take_due_checks
from shared.pushes.queries import tally_events
from tests.environment import longshore_environment
from tests.git_service import make_key
from tests.service.api.invocation import Api
from tests.statements import Statement, describe, recorded_statements, rows_read, whole_scans

HISTORY = History(pushes=20_000, queued=200)
FEW = 2_000
"""Of 20,000 pushes and 25,000 jobs: enough for the queue to be read several times over."""
SMALL = {
    "registries",
    "owners",
    "algorithms",
    "worker_processes",
    "webhooks",
    "webhook_deliveries",
    "push_tallies",
    "marks",
}
OF_FEW_ROWS = {
    "ix_image_pushes_missing",
    "ix_jobs_leased_registry",
    "ix_jobs_queued_awaits",
    "uq_jobs_lock_key_leased",
    "ix_webhook_deliveries_state_next",  # deliveries are deleted after a week
}
REGISTRY = id_of(RECORDED, 3)
QUEUED = id_of(PUSH_JOBS, HISTORY.pushes)

READS = {
    "stalled": "/v1/pushes?status=stalled",
    "failed of a registry": f"/v1/pushes?status=failed&registry={REGISTRY}",
    "of a registry": f"/v1/pushes?registry={REGISTRY}",
    "queued": "/v1/pushes?status=queued",
    "a marker deep in the list": f"/v1/pushes?marker={5_000:016x}",
    "jobs of a kind that is rare": "/v1/jobs?kind=publish",
    "jobs of a state that is rare": "/v1/jobs?state=running",
    "jobs of a kind in a state": "/v1/jobs?kind=compile&state=queued",
    "failed jobs of a registry": f"/v1/jobs?state=failed&registry={REGISTRY}",
    "jobs of a registry": f"/v1/jobs?registry={REGISTRY}",
    "jobs of a registry that cannot be": f"/v1/jobs?kind=compile&registry={REGISTRY}",
    "jobs of an algorithm": "/v1/jobs?algorithm=owner4/Algorithm20",
    "versions": "/v1/algorithms/owner1/Algorithm1/versions",
    "published versions": "/v1/algorithms/owner1/Algorithm1/versions?published=true",
    "builds": "/v1/algorithms/owner1/Algorithm1/builds",
    "one version": f"/v1/algorithms/owner1/Algorithm1/versions/{hash_of(17)}",
    "the status of a version": f"/v1/algorithms/owner1/Algorithm1/versions/{hash_of(17)}/registry",
    "pushes whose image is gone": "/v1/pushes?missing=true",
    "counts": "/metrics",
}
WORK: dict[str, Callable[..., Any]] = {
    "the next pushes of the fair queue": lambda session: next_pushes(session, "nobody"),
    "what is due": lambda session: take_due_messages(session, limit=200),
    "what is lost": lost_jobs,
    "places that nobody holds": release_abandoned_locks,
    "what waits for an ended job": resolve_overdue,
    "pushes that nobody claims": lambda session: report_unclaimed(session, after_seconds=60),
    "pushes that do not move": lambda session: report_no_progress(session, after_seconds=60),
    "what a registry takes now": lambda session: messages_for_registry(session, REGISTRY),
    "who gets the room": lambda session: messages_after_release(session, session.scalars(_queued()).one()),
    "images to look for": lambda session: take_due_checks(session, after_seconds=1, limit=20),
    "the tally": tally_events,
}


def _queued() -> Select[tuple[Job]]:
    return select(Job).where(Job.id == QUEUED)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A client of an installation with years of history."""
    directory, variables = tmp_path_factory.mktemp("history"), {}
    if request.param == "postgresql":
        name = f"long_history_{uuid.uuid4().hex[:12]}"
        variables["database_url"] = request.getfixturevalue("postgres").create_database(name)
    with longshore_environment(directory, tables=False, **variables):
        Base.metadata.create_all(database().engine)
        make_history(database().engine, HISTORY)
        with database().writing() as session:
            tally_events(session)
        yield Api(create_app(), make_key("admin", KeyKind.ADMIN))
    if request.param == "postgresql":
        request.getfixturevalue("postgres").drop_database(name)


def expect_little_work(statements: list[Statement]) -> None:
    assert statements
    for statement in statements:
        if database().engine.dialect.name == "postgresql":
            assert rows_read(database(), statement) <= FEW, describe(statement)
        else:
            assert whole_scans(database(), statement) <= SMALL | OF_FEW_ROWS, describe(statement)


@pytest.mark.parametrize("path", READS.values(), ids=READS.keys())
def test_a_read_goes_through_no_large_table(admin: Api, path: str) -> None:
    if "marker" not in path:
        admin.call("GET", path)
    with recorded_statements(database()) as statements:
        assert admin.call("GET", path).status_code == 200
    expect_little_work([each for each in statements if not _is_page_of_everything(each.text)])


def _is_page_of_everything(text: str) -> bool:
    """Return whether SQLite scans from the end of the table and stops after one page, as it does without a filter."""
    return "WHERE" not in text and "LIMIT" in text


@pytest.mark.parametrize("ask", WORK.values(), ids=WORK.keys())
@pytest.mark.usefixtures("admin")
def test_workers_and_the_sweep_go_through_no_large_table(ask: Callable[..., Any]) -> None:
    with recorded_statements(database()) as statements, database().writing() as session:
        ask(session)
        session.rollback()
    expect_little_work(statements)


@pytest.mark.usefixtures("admin")
def test_a_claim_goes_through_no_large_table() -> None:
    with recorded_statements(database()) as statements:
        claim = claim_job(database(), QUEUED, owner="worker/1", lease_seconds=60)
    assert claim is not None
    expect_little_work(statements)


@pytest.mark.parametrize(
    "path", ["/v1/pushes", "/v1/pushes?status=queued", "/v1/jobs", "/v1/algorithms/owner1/Algorithm1/versions"]
)
def test_fifty_rows_take_as_many_statements_as_ten(admin: Api, path: str) -> None:
    numbers = []
    for limit in (10, 50):
        known_keys.forget()  # the key is cached briefly; both must read it
        with recorded_statements(database()) as statements:
            found = admin.get(f"{path}{'&' if '?' in path else '?'}limit={limit}")
        assert len(found["results"]) == limit
        numbers.append(len(statements))
    assert numbers[1] == numbers[0]


def test_the_status_of_a_version_is_one_statement(admin: Api) -> None:
    path = READS["the status of a version"]
    admin.get(path)
    with recorded_statements(database()) as statements:
        assert len(admin.get(path)) == 4
    assert len(statements) <= 2, "one, and one to ask whose key it is where that was a second ago"
