"""The progress that a worker writes to a push row."""

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import ImagePush, Job, PushState
from shared.pushes.progress import Progress, write_progress
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    build_commit,
    change,
    end_push,
    make_claim,
    make_registry,
    milliseconds_from_now,
    one_row,
    push,
)

pytestmark = pytest.mark.usefixtures("installation")

SOME = Progress(done_bytes=5, total_bytes=10, layers_done=1, layers_total=2)


def test_progress_is_shown() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    claim = make_claim(job)
    with database().writing() as session:
        write_progress(session, claim, SOME, "Pushes.")
    row = one_row(ImagePush, id=job.push_id)
    assert (row.done_bytes, row.total_bytes, row.layers_done, row.layers_total) == (5, 10, 1, 2)
    assert (row.message, row.state) == ("Pushes.", PushState.IN_PROGRESS)


@pytest.mark.parametrize(
    ("moved", "message"),
    [(Progress(6, 10, 1, 2), "Pushes."), (Progress(5, 10, 2, 2), "Pushes."), (SOME, "Pulls the image: layer 3.")],
)
def test_moving_again_ends_a_stall_and_standing_still_does_not(moved: Progress, message: str) -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    claim = make_claim(job)
    with database().writing() as session:
        write_progress(session, claim, SOME, "Pushes.")
    row = one_row(ImagePush, id=job.push_id)
    long_ago = now_ms() - 600_000
    change(row, state=PushState.STALLED, progressed_at=long_ago)
    with database().writing() as session:
        write_progress(session, claim, SOME, "Pushes.")
    row = one_row(ImagePush, id=job.push_id)
    assert row.state == PushState.STALLED
    assert milliseconds_from_now(row.progressed_at) <= -600_000
    with database().writing() as session:
        write_progress(session, claim, moved, message)
    row = one_row(ImagePush, id=job.push_id)
    assert row.state == PushState.IN_PROGRESS
    assert milliseconds_from_now(row.progressed_at) > -60_000


def test_a_success_shows_everything_done() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    claim = make_claim(job)
    with database().writing() as session:
        write_progress(session, claim, SOME, "Pushes.")
    end_push(claim)
    row = one_row(ImagePush, id=job.push_id)
    assert (row.state, row.digest, row.done_bytes, row.layers_done) == (PushState.SUCCEEDED, DIGEST, 10, 2)
    assert one_row(Job, id=job.id).state == "succeeded"
