"""The fair queue: owners take turns, however many pushes each has."""

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, Job, Owner, Registry
from shared.jobs.fair_queue import next_pushes
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, end_push, lose_lease, make_claim, make_registry, one_row, push

pytestmark = pytest.mark.usefixtures("installation")

HASHES = [f"{number:040x}" for number in range(1, 10)]


def builds_of(owner: str, number: int) -> list[Build]:
    algorithm = make_algorithm(owner)
    return [build_commit(algorithm, git_hash) for git_hash in HASHES[:number]]


def claim_order(job_id: str = "nobody") -> list[str]:
    """Return job ids in the order in which a worker tries to claim them, if none of its claims succeeds."""
    tried = list[str]()
    with database().reading() as session:
        while more := next_pushes(session, job_id, tried):
            tried += more
    return [job_id for job_id in tried if job_id != "nobody"]


def owner_of(job_id: str) -> str:
    return one_row(Job, id=job_id).owner


@pytest.fixture
def registry() -> Registry:
    return make_registry()


def test_an_owner_with_one_push_does_not_wait_behind_one_with_many(registry: Registry) -> None:
    many = [push(build, registry) for build in builds_of("many", 5)]
    (one,) = [push(build, registry) for build in builds_of("one", 1)]
    served = []
    for _ in range(3):
        job_id = claim_order()[0]
        served.append(owner_of(job_id))
        end_push(make_claim(one_row(Job, id=job_id)))
    assert served == ["many", "one", "many"]
    assert many[0].seq < one.seq


def test_who_has_fewer_running_comes_first(registry: Registry) -> None:
    first, _second = [push(build, registry) for build in builds_of("busy", 2)]
    make_claim(first)
    (idle,) = [push(build, registry) for build in builds_of("idle", 1)]
    change(one_row(Owner, username="busy"), served_at=0)
    change(one_row(Owner, username="idle"), served_at=now_ms())
    assert claim_order()[0] == idle.id


def test_of_one_owner_the_oldest_comes_first(registry: Registry) -> None:
    jobs = [push(build, registry) for build in builds_of("acme", 3)]
    assert claim_order() == [job.id for job in jobs]


def test_what_cannot_begin_has_no_turn(registry: Registry) -> None:
    blocked = make_registry(paused_at=now_ms(), paused_by="operator", pause_reason="No.")
    build, other = builds_of("acme", 2)
    push(build, blocked)
    due = push(other, registry)
    later = push(build_commit(make_algorithm("late")), registry)
    change(later, next_attempt_at=now_ms() + 60_000)
    assert claim_order() == [due.id]


def test_the_dispatched_push_is_tried_last_even_if_its_worker_was_lost(registry: Registry) -> None:
    lost, due = [push(build, registry) for build in builds_of("acme", 2)]
    make_claim(lost)
    lose_lease(lost)
    assert claim_order(lost.id) == [due.id, lost.id]
