"""Publish a version: its number is reserved in the request's transaction and freed again if the publish fails."""

import pytest

from shared.commands.cancel import cancel_job
from shared.commands.publish import AlreadyPublishedError, VersionType
from shared.db.engine import database
from shared.db.models import Algorithm, Job, JobState, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    OTHER_HASH,
    build_commit,
    compile_commit,
    end_badly,
    end_build,
    fresh,
    make_claim,
    make_registry,
    one_row,
    publish,
)

pytestmark = pytest.mark.usefixtures("installation")


def version_of(algorithm: Algorithm, git_hash: str = HASH) -> Version:
    return one_row(Version, algorithm_id=algorithm.id, git_hash=git_hash)


@pytest.mark.parametrize(
    ("version_type", "number"),
    [
        (VersionType.MAJOR, "1.0.0"),
        (VersionType.MINOR, "0.1.0"),
        (VersionType.REVISION, "0.0.1"),
        (VersionType.PATCH, "0.0.1"),
    ],
)
def test_the_first_number(version_type: VersionType, number: str) -> None:
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    published = publish(algorithm, version_type=version_type, callability="public", release_notes="First.")
    version = version_of(algorithm)
    assert published.job.state == JobState.SUCCEEDED
    assert (version.semantic_version, version.publish_state, version.build_id) == (number, "published", build.id)
    assert (version.callability, version.release_notes) == ("public", "First.")
    assert version.published_at is not None


def test_numbers_go_on_from_the_highest() -> None:
    algorithm = make_algorithm()
    numbers = []
    steps = [VersionType.MINOR, VersionType.REVISION, VersionType.MAJOR, VersionType.PATCH, VersionType.MINOR]
    for number, step in enumerate(steps):
        build_commit(algorithm, f"{number:040x}")
        publish(algorithm, version_type=step)
        numbers.append(version_of(algorithm, f"{number:040x}").semantic_version)
    assert numbers == ["0.1.0", "0.1.1", "1.0.0", "1.0.1", "1.1.0"]


def test_nothing_compiled_is_nothing_to_publish() -> None:
    with pytest.raises(InvalidInputError, match="compile it first"):
        publish(make_algorithm())


def test_a_published_commit_is_not_published_again() -> None:
    algorithm = make_algorithm()
    build_commit(algorithm)
    publish(algorithm)
    with pytest.raises(AlreadyPublishedError):
        publish(algorithm)


def test_a_repeat_while_the_publish_waits_gives_the_same_job() -> None:
    algorithm = make_algorithm()
    compile_commit(algorithm)
    assert publish(algorithm).job.id == publish(algorithm).job.id
    assert version_of(algorithm).publish_state == PublishState.PENDING


def test_a_failed_newest_build_is_not_published_though_an_older_one_is_good() -> None:
    algorithm = make_algorithm()
    build_commit(algorithm, HASH)
    end_badly(make_claim(compile_commit(algorithm, OTHER_HASH).job), message="src/Hello.py is missing.")
    with pytest.raises(InvalidInputError, match=r"src/Hello\.py is missing"):
        publish(algorithm)


def test_a_named_commit_is_published_though_a_newer_one_was_built() -> None:
    algorithm = make_algorithm()
    build_commit(algorithm, HASH)
    build_commit(algorithm, OTHER_HASH)
    publish(algorithm, version=version_of(algorithm, HASH))
    assert version_of(algorithm, HASH).semantic_version == "0.0.1"
    assert version_of(algorithm, OTHER_HASH).semantic_version is None


def test_a_number_is_reserved_while_the_build_runs() -> None:
    algorithm = make_algorithm()
    compile_commit(algorithm, HASH)
    publish(algorithm)
    build_commit(algorithm, OTHER_HASH)
    publish(algorithm)
    assert version_of(algorithm, HASH).semantic_version == "0.0.1"
    assert version_of(algorithm, OTHER_HASH).semantic_version == "0.0.2"


@pytest.mark.parametrize("way", ["build fails", "cancelled"])
def test_a_number_is_freed_again(way: str) -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm, HASH)
    published = publish(algorithm)
    if way == "cancelled":
        with database().writing() as session:
            cancel_job(session, session.get_one(Job, published.job.seq))
    else:
        end_badly(make_claim(compiled.job))
    assert fresh(published.job).state in (JobState.CANCELLED, JobState.FAILED)
    assert version_of(algorithm, HASH).semantic_version is None
    build_commit(algorithm, OTHER_HASH)
    publish(algorithm)
    assert version_of(algorithm, OTHER_HASH).semantic_version == "0.0.1"


def test_a_cancelled_publish_leaves_its_build_alone() -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm)
    published = publish(algorithm)
    claim = make_claim(compiled.job)
    with database().writing() as session:
        cancel_job(session, session.get_one(Job, published.job.seq))
    end_build(claim)
    assert fresh(compiled.job).state == JobState.SUCCEEDED
    assert version_of(algorithm).publish_state == PublishState.NO


def test_publishes_of_two_commits_at_the_same_time_take_different_numbers() -> None:
    algorithm = make_algorithm()
    hashes = [f"{number:040x}" for number in range(4)]
    for git_hash in hashes:
        build_commit(algorithm, git_hash)
    versions = [version_of(algorithm, git_hash) for git_hash in hashes]
    run_concurrently(*(lambda version=version: publish(algorithm, version=version) for version in versions))
    assert sorted(str(version_of(algorithm, git_hash).semantic_version) for git_hash in hashes) == [
        "0.0.1",
        "0.0.2",
        "0.0.3",
        "0.0.4",
    ]


def test_a_push_of_a_publish_takes_its_number() -> None:
    algorithm, registry = make_algorithm(), make_registry()
    build_commit(algorithm)
    published = publish(algorithm, registry)
    pushed = one_row(Job, parent_id=published.job.id)
    assert (pushed.semantic_version, pushed.awaits_id) == ("0.0.1", None)
