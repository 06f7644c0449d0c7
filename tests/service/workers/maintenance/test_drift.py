"""Drift checks: missing images are found, reported and, if enabled, pushed again."""

import json
import uuid
from collections.abc import Callable

import pytest
import requests
from sqlalchemy import select

from dev.services.registry import PrivateRegistry
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, ImagePush, Job, PushEvent, PushState, Registry
from shared.registry.client import MANIFEST_TYPES
from shared.registry.credentials import Credentials
from shared.settings import settings
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    OTHER_DIGEST,
    OTHER_HASH,
    build_commit,
    change,
    end_push,
    fresh,
    make_claim,
    make_registry,
    one_row,
    push,
)
from tests.unit.shared.registry.fake_registry import VERSION, FakeRegistry, Reply, Request, fake_registry
from workers.maintenance.drift import MAX_CHECKS_PER_TICK, check_drift, check_drift_on_tick

pytestmark = pytest.mark.usefixtures("installation", "broker", "eager")

LONG_AGO = 1_000_000_000
RECORDED = Credentials("pusher", "recorded")
HAS = Reply(200, b"{}", {"Docker-Content-Digest": DIGEST, **VERSION})
HAS_NOT = Reply(404, b"{}", VERSION)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check each image once an hour."""
    monkeypatch.setenv("LONGSHORE_DRIFT_SECONDS", "3600")
    settings.cache_clear()


@pytest.fixture
def repairs(
    monkeypatch: pytest.MonkeyPatch,
    installation: str,  # noqa: ARG001 - it comes first: it removes all settings
) -> None:
    monkeypatch.setenv("LONGSHORE_REPAIR_MISSING", "1")
    settings.cache_clear()


def pushed_long_ago(
    registry: Registry, build: Build | None = None, digest: str = DIGEST, **options: Credentials
) -> ImagePush:
    """Make a successful push whose check is due."""
    job = push(build or build_commit(make_algorithm()), registry, **options)
    end_push(make_claim(job), digest)
    row = one_row(ImagePush, id=job.push_id)
    change(row, looked_at=LONG_AGO, seen_at=LONG_AGO)
    return fresh(row)


def answering(manifest: Reply) -> Callable[[Request], Reply]:
    """Return the responses of a registry that responds so to requests for manifests."""

    def answer(request: Request) -> Reply:
        return manifest if "/manifests/" in request.path else Reply(200, b"{}", VERSION)

    return answer


def events(row: ImagePush) -> list[tuple[str, str]]:
    with database().reading() as session:
        rows = session.execute(
            select(PushEvent.kind, PushEvent.message).where(PushEvent.push_id == row.id).order_by(PushEvent.seq)
        )
        return [(kind, message) for kind, message in rows if kind in ("missing", "found")]


def manifest_requests(server: FakeRegistry) -> list[str]:
    return [request.path for request in server.requests if "/manifests/" in request.path]


def test_what_was_deleted_from_a_real_registry_is_missing_until_it_is_there_again(registry: PrivateRegistry) -> None:
    repository = f"{registry.url}/v2/acme/hello"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [],
            "annotations": {"of": str(uuid.uuid4())},
        }
    ).encode()
    kind = {"Content-Type": "application/vnd.oci.image.index.v1+json", "Accept": MANIFEST_TYPES}
    login = next(iter(registry.users.items()))

    def put() -> str:
        answer = requests.put(f"{repository}/manifests/drift", manifest, headers=kind, auth=login, timeout=10)
        answer.raise_for_status()
        return answer.headers["Docker-Content-Digest"]

    digest = put()
    row = pushed_long_ago(
        make_registry(registry.url, Credentials(*login)), build_commit(make_algorithm("acme")), digest
    )
    check_drift()
    row = fresh(row)
    assert row.missing_at is None
    assert (row.seen_at or 0) > LONG_AGO

    requests.delete(f"{repository}/manifests/{digest}", auth=login, timeout=10).raise_for_status()
    change(row, looked_at=LONG_AGO)
    check_drift()
    row = fresh(row)
    assert row.missing_at is not None
    assert row.state == PushState.SUCCEEDED, "the last push was successful"
    ((kind_of_event, message),) = events(row)
    assert kind_of_event == "missing"
    assert f"does not have {digest} any more; it was last seen there 20" in message

    change(row, looked_at=LONG_AGO)
    check_drift()
    assert len(events(row)) == 1, "a known loss is reported once"

    put()
    change(row, looked_at=LONG_AGO)
    check_drift()
    assert fresh(row).missing_at is None
    assert [kind for kind, _ in events(row)] == ["missing", "found"]


def test_a_good_push_is_a_look_and_a_look_lasts() -> None:
    with fake_registry(answering(HAS)) as server:
        registry = make_registry(server.url, RECORDED)
        job = push(build_commit(make_algorithm()), registry)
        end_push(make_claim(job))
        check_drift()
        assert manifest_requests(server) == []
        row = one_row(ImagePush, id=job.push_id)
        change(row, looked_at=LONG_AGO)
        before = fresh(row).updated_at
        check_drift()
        check_drift()
        assert manifest_requests(server) == [f"/v2/{row.image.partition('/')[2].rpartition(':')[0]}/manifests/{DIGEST}"]
        assert fresh(row).updated_at == before, "nothing has happened to the push"


def test_a_push_that_succeeds_again_is_not_missing_any_more() -> None:
    with fake_registry(answering(HAS_NOT)) as server:
        registry, build = make_registry(server.url, RECORDED), build_commit(make_algorithm())
        row = pushed_long_ago(registry, build)
        check_drift()
        assert fresh(row).missing_at is not None
        end_push(make_claim(push(build, registry)), OTHER_DIGEST)
        assert fresh(row).missing_at is None


def test_an_answer_about_an_older_digest_does_not_judge_a_newer() -> None:
    build = build_commit(make_algorithm())

    def pushes_meanwhile(request: Request) -> Reply:
        if "/manifests/" in request.path:
            end_push(make_claim(push(build, registry)), OTHER_DIGEST)
            return HAS_NOT
        return Reply(200, b"{}", VERSION)

    with fake_registry(pushes_meanwhile) as server:
        registry = make_registry(server.url, RECORDED)
        row = pushed_long_ago(registry, build)
        check_drift()
        assert fresh(row).last_success_digest == OTHER_DIGEST
        assert fresh(row).missing_at is None
        assert events(row) == []


@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, b"<html>", {}),
        Reply(404, b"not here", {}),
        Reply(401, b"{}", {"WWW-Authenticate": 'Basic realm="here"', **VERSION}),
        Reply(500, b"{}", VERSION),
    ],
    ids=["a page", "404 of a proxy", "refused", "broken"],
)
def test_only_a_registry_that_knows_us_is_believed(answer: Reply) -> None:
    with fake_registry(lambda _request: answer) as server:
        row = pushed_long_ago(make_registry(server.url, RECORDED))
        check_drift()
        assert fresh(row).missing_at is None
        assert manifest_requests(server) == []


def test_a_repository_that_is_hidden_from_us_is_not_missing() -> None:
    def hides(request: Request) -> Reply:
        if "/manifests/" in request.path:
            return HAS_NOT
        return Reply(403, b"{}", VERSION) if "/tags/" in request.path else Reply(200, b"{}", VERSION)

    with fake_registry(hides) as server:
        row = pushed_long_ago(make_registry(server.url, RECORDED))
        check_drift()
        assert len(manifest_requests(server)) == 1
        assert fresh(row).missing_at is None


def test_a_registry_that_fails_is_left_alone_and_asked_again_soon() -> None:
    with fake_registry(answering(Reply(500, b"{}", VERSION))) as server:
        registry, build = make_registry(server.url, RECORDED), build_commit(make_algorithm())
        rows = [pushed_long_ago(registry, build), pushed_long_ago(registry, build_commit(make_algorithm(), OTHER_HASH))]
        check_drift()
        assert len(set(manifest_requests(server))) == 1, "the second was not checked"
        with database().reading() as session:
            now = session.scalars(select(now_ms())).one()
        for row in rows:
            assert 590_000 < (fresh(row).looked_at or 0) + 3_600_000 - now <= 600_000


def test_a_registry_that_asks_to_slow_down_is_obeyed_by_pushes_too() -> None:
    with fake_registry(answering(Reply(429, b"{}", {"Retry-After": "70", **VERSION}))) as server:
        registry = make_registry(server.url, RECORDED)
        row = pushed_long_ago(registry)
        check_drift()
        assert fresh(registry).throttled_until is not None
        change(row, looked_at=LONG_AGO)
        server.requests.clear()
        check_drift()
        assert server.requests == []


@pytest.mark.parametrize("kept_away", [{"paused_at": 1}, {"deleted_at": 1}])
def test_a_paused_or_deleted_registry_is_not_asked(kept_away: dict[str, int]) -> None:
    with fake_registry(answering(HAS_NOT)) as server:
        registry = make_registry(server.url, RECORDED)
        pushed_long_ago(registry)
        change(registry, **kept_away)
        check_drift()
        assert server.requests == []


def test_a_registry_that_moved_is_not_asked_for_what_it_was_never_given() -> None:
    with fake_registry(answering(HAS_NOT)) as server:
        registry = make_registry("elsewhere.example.com", RECORDED)
        row = pushed_long_ago(registry)
        change(registry, registry_url=server.url, plain_http=True)
        check_drift()
        assert manifest_requests(server) == []
        assert fresh(row).missing_at is None


def test_few_are_asked_for_at_once_and_no_two_workers_ask_for_the_same() -> None:
    with fake_registry(answering(HAS)) as server:
        registry = make_registry(server.url, RECORDED)
        algorithm = make_algorithm()
        for number in range(MAX_CHECKS_PER_TICK + 3):
            pushed_long_ago(registry, build_commit(algorithm, f"{number:040x}"))
        check_drift()
        assert len(manifest_requests(server)) == MAX_CHECKS_PER_TICK
        run_concurrently(check_drift, check_drift)
        assert len(manifest_requests(server)) == MAX_CHECKS_PER_TICK + 3


@pytest.mark.usefixtures("repairs")
def test_what_is_missing_is_pushed_again_in_its_place_in_the_order_of_asking() -> None:
    with fake_registry(answering(HAS_NOT)) as server:
        registry, build = make_registry(server.url, RECORDED), build_commit(make_algorithm())
        row = pushed_long_ago(registry, build)
        check_drift()
        repaired = one_row(Job, id=fresh(row).job_id)
        assert repaired.request_seq == row.last_success_seq
        assert fresh(row).state == PushState.QUEUED
        change(row, looked_at=LONG_AGO)
        check_drift()
        assert fresh(row).job_id == repaired.id, "one repair is enough"


def test_nothing_is_pushed_again_that_nobody_asked_to_repair() -> None:
    with fake_registry(answering(HAS_NOT)) as server:
        row = pushed_long_ago(make_registry(server.url, RECORDED))
        check_drift()
        assert fresh(row).job_id == row.job_id


@pytest.mark.usefixtures("repairs")
def test_what_was_pushed_with_credentials_of_its_own_cannot_be_repaired() -> None:
    with fake_registry(answering(HAS_NOT)) as server:
        row = pushed_long_ago(make_registry(server.url), credentials=Credentials("pusher", "given"))
        check_drift()
        assert fresh(row).missing_at is not None
        assert fresh(row).job_id == row.job_id


def test_nobody_looks_where_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_DRIFT_SECONDS", "0")
    settings.cache_clear()
    with fake_registry(answering(HAS_NOT)) as server:
        pushed_long_ago(make_registry(server.url, RECORDED))
        check_drift_on_tick()
        assert server.requests == []


def test_of_ticks_that_piled_up_one_looks() -> None:
    with fake_registry(answering(HAS)) as server:
        row = pushed_long_ago(make_registry(server.url, RECORDED))
        check_drift_on_tick()
        change(row, looked_at=LONG_AGO)
        check_drift_on_tick()
        assert len(manifest_requests(server)) == 1
