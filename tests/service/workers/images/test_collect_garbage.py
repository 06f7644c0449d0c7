"""After a job the image store is reduced to its limit; images that pushes need stay."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from dev.services.mounts import memory_disk
from dev.services.processes import ServiceFailedError
from shared.db.engine import database
from shared.db.models import JobState
from shared.errors import ErrorClass, WorkError
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import HASH, OTHER_HASH, build_commit, change, compile_commit, fresh, make_registry, push
from tests.service.workers.fake_work import FakeWork
from tests.unit.workers.images.images import add_image
from workers.builds.build import write_built
from workers.images.collector import GRACE_SECONDS
from workers.images.factory import collect_if_full, image_store
from workers.images.image_store import held_image
from workers.images.oci import Manifest
from workers.jobs.executor import run_job
from workers.jobs.heartbeat import Heartbeat

pytestmark = pytest.mark.usefixtures("sqlite_installation", "broker")

IMAGE_BYTES = 48 * 1024 * 1024
"""The minimum size of a store is 64 MiB."""


@pytest.fixture(autouse=True)
def limit(
    sqlite_installation: str,  # noqa: ARG001 - it comes first
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Set a limit of one and a half images."""
    monkeypatch.setenv("LONGSHORE_STORE_MAX_BYTES", str(IMAGE_BYTES * 3 // 2))
    settings.cache_clear()


def old_image(name: str, *, days: int, size: int = IMAGE_BYTES) -> Manifest:
    """Add an image whose last use was that many days ago."""
    with image_store().use() as use:
        manifest = add_image(use, name, os.urandom(size))
    used = time.time() - GRACE_SECONDS - days * 86_400
    for digest in (manifest.descriptor.digest, *(blob.digest for blob in manifest.blobs)):
        os.utime(_blob(digest), (used, used))
    return manifest


def _blob(digest: str) -> Path:
    return settings().store_dir / "blobs" / "sha256" / digest.removeprefix("sha256:")


def is_there(manifest: Manifest) -> bool:
    with image_store().use() as use:
        return held_image(use, manifest.descriptor.digest) is not None


def test_what_was_not_used_for_longest_goes() -> None:
    older, newer = old_image("a:1", days=2), old_image("a:2", days=1)
    collect_if_full()
    assert (is_there(older), is_there(newer)) == (False, True)


def test_within_its_size_the_store_is_left_alone() -> None:
    only = old_image("a:1", days=30)
    collect_if_full()
    assert is_there(only)


def test_what_a_push_waits_for_stays_whatever_its_age() -> None:
    awaited, other = old_image("a:1", days=30), old_image("a:2", days=1)
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    change(build, manifest_digest=awaited.descriptor.digest)
    change(build_commit(algorithm, OTHER_HASH), manifest_digest=other.descriptor.digest)
    push(fresh(build), make_registry())
    collect_if_full()
    assert (is_there(awaited), is_there(other)) == (True, False)


def test_a_job_that_fails_has_the_store_collected_as_well() -> None:
    older, newer = old_image("a:1", days=2), old_image("a:2", days=1)

    def fail(_heartbeat: Heartbeat) -> None:
        raise WorkError(ErrorClass.INVALID, "It broke.")

    run_job(compile_commit(make_algorithm()).job.id, FakeWork(fail))
    assert (is_there(older), is_there(newer)) == (False, True)


def test_what_a_build_has_made_just_now_stays_for_the_push_that_waits_for_it() -> None:
    """The row has the digest only when the end of the build is written, so nothing is collected before."""
    made: list[Manifest] = []

    def build(_heartbeat: Heartbeat) -> None:
        made.append(old_image("a:1", days=30))
        old_image("a:2", days=1)

    def finish(session: Session) -> None:
        write_built(
            session,
            work.claims[0],
            image_id="sha256:1",
            manifest_digest=made[0].descriptor.digest,
            image_bytes=1,
            environment_key=None,
        )

    work = FakeWork(build, finish=finish)
    run_job(compile_commit(make_algorithm(), HASH, make_registry()).job.id, work)
    assert is_there(made[0])


def test_a_job_that_found_no_room_finds_some_when_it_comes_back() -> None:
    megabyte = 1024 * 1024
    with ExitStack() as mounted:
        try:
            mounted.enter_context(memory_disk(settings().store_dir, megabytes=8))
        except ServiceFailedError as refused:
            pytest.skip(str(refused))
        images = [old_image(f"a:{days}", days=days, size=megabyte) for days in range(6)]
        job = compile_commit(make_algorithm()).job
        work = FakeWork(lambda _heartbeat: old_image("a:new", days=0, size=3 * megabyte))
        run_job(job.id, work)
        assert (fresh(job).state, fresh(job).error_class) == (JobState.QUEUED, ErrorClass.UNAVAILABLE)
        assert [is_there(image) for image in images] == [True] * 4 + [False] * 2
        change(job, next_attempt_at=None)
        run_job(job.id, work)
        assert fresh(job).state == JobState.SUCCEEDED


def test_a_database_that_does_not_answer_leaves_the_store_as_it_is() -> None:
    images = [old_image("a:1", days=2), old_image("a:2", days=1)]
    with database().engine.begin() as connection:
        connection.execute(text("ALTER TABLE builds RENAME TO away"))
    collect_if_full()
    assert all(is_there(image) for image in images)
