"""The number of database statements of a push, so that it does not grow unnoticed."""

import pytest

from shared.db.engine import database
from shared.db.models import Job, JobState
from shared.pushes.progress import write_success
from tests.git_service import make_algorithm
from tests.rows import DIGEST, build_commit, fresh, make_registry, push
from tests.service.workers.fake_work import FakeWork
from tests.statements import recorded_statements
from workers.jobs.executor import run_next_push

pytestmark = pytest.mark.usefixtures("installation", "broker")

TURN = 2
"""The first due push of each owner, and more for few owners."""
CLAIM = 4
"""The registry is locked; job, push row and owner are written."""
END = 9
"""Version and job are locked; the push row and its history written; webhooks read; the job ended; its dependents, the
jobs that wait for its lock, and whether its registry was full."""
NOTE = 1
"""Whether the circuit breaker of the registry is closed."""


@pytest.fixture
def job() -> Job:
    return push(build_commit(make_algorithm()), make_registry())


def test_a_push_that_goes_well_costs_these_statements_and_no_more(job: Job) -> None:
    work = FakeWork(
        finish=lambda session: write_success(session, work.claims[0], digest=DIGEST, image="i", message="m")
    )
    with recorded_statements(database()) as statements:
        run_next_push(job.id, work)
    assert fresh(job).state == JobState.SUCCEEDED
    assert len(statements) <= TURN + CLAIM + END + NOTE, "\n".join(each.text for each in statements)
