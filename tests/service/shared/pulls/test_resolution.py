"""Where an execution pulls from: the registry of the latest good push by the order of asking; nothing unscanned."""

from collections.abc import Callable

import pytest

from shared.clock import now_ms
from shared.database import database
from shared.models import Algorithm, Build, ImagePush, Job, Registry, Version
from shared.orders.retry import Retry, retry_pushes
from shared.pulls.resolution import Resolution, resolve_pull
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    OTHER_DIGEST,
    build_commit,
    change,
    end_badly,
    end_push,
    fresh,
    make_registry,
    push,
    taken,
    the,
)

pytestmark = pytest.mark.usefixtures("installation")


@pytest.fixture
def build() -> Build:
    return build_commit(make_algorithm())


@pytest.fixture
def fall_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets LONGSHORE_PULL_FALLBACK."""

    def set_to(value: str) -> None:
        monkeypatch.setenv("LONGSHORE_PULL_FALLBACK", value)
        settings.cache_clear()

    return set_to


def resolved(build: Build) -> Resolution:
    algorithm, version = the(Algorithm, id=build.algorithm_id), the(Version, id=build.version_id)
    with database().reading() as session:
        return resolve_pull(session, algorithm, version)


def repository(registry: Registry, build: Build) -> str:
    return f"{registry.registry_url}/{the(Algorithm, id=build.algorithm_id).image_path}"


def pushed(build: Build, registry: Registry, digest: str = DIGEST) -> ImagePush:
    """Push well, and write the image down as a worker does."""
    job = push(build, registry)
    end_push(taken(job), digest)
    row = the(ImagePush, id=job.push_id)
    change(row, last_success_image=row.image)
    return fresh(row)


def test_the_image_comes_by_digest_from_where_the_latest_good_push_went(build):
    production, sandbox = make_registry(), make_registry()
    pushed(build, production)
    found = resolved(build)
    assert found.image == f"{repository(production, build)}@{DIGEST}"
    assert (found.digest, found.registry_id) == (DIGEST, production.id)
    pushed(build, sandbox, OTHER_DIGEST)
    found = resolved(build)
    assert found.image == f"{repository(sandbox, build)}@{OTHER_DIGEST}"
    assert [(one.registry_id, one.chosen) for one in found.considered] == [(sandbox.id, True), (production.id, False)]
    pushed(build, production)
    assert resolved(build).registry_id == production.id


def test_the_latest_is_the_one_asked_for_last_not_the_one_that_ended_last(build):
    first, second = make_registry(), make_registry()
    slow = push(build, first)
    pushed(build, second)
    end_push(taken(slow))
    change(the(ImagePush, id=slow.push_id), last_success_image=the(ImagePush, id=slow.push_id).image)
    assert resolved(build).registry_id == second.id


def test_a_retry_never_becomes_the_latest_by_being_one(build):
    production, sandbox = make_registry(), make_registry()
    end_badly(taken(push(build, production)))
    pushed(build, sandbox)
    (job_id,) = retry_pushes(database(), Retry(registry_id=production.id)).jobs
    row = the(ImagePush, registry_id=production.id)
    assert row.job_id == job_id
    end_push(taken(the(Job, id=job_id)))
    change(row, last_success_image=row.image)
    assert resolved(build).registry_id == sandbox.id


def test_a_push_that_fails_later_takes_nothing_away(build):
    registry = make_registry()
    pushed(build, registry)
    end_badly(taken(push(build, registry)))
    assert resolved(build).digest == DIGEST


def test_a_deleted_registry_is_passed_over_and_the_reason_says_so(build):
    production, sandbox = make_registry(), make_registry()
    pushed(build, production)
    pushed(build, sandbox)
    change(sandbox, deleted_at=now_ms())
    found = resolved(build)
    assert found.registry_id == production.id
    assert "Falls back" in found.reason
    assert found.considered[0].reason == "The registry was deleted."


@pytest.mark.parametrize("fallback", ["none", "registry", "store"])
def test_how_far_it_may_fall_back(build, fall_back, fallback):
    fall_back(fallback)
    production, sandbox = make_registry(), make_registry()
    pushed(build, production)
    pushed(build, sandbox)
    change(sandbox, deleted_at=now_ms())
    found = resolved(build)
    if fallback == "none":
        assert found.image is None
        assert "LONGSHORE_PULL_FALLBACK=none" in found.considered[1].reason
    else:
        assert found.registry_id == production.id


@pytest.mark.parametrize("fallback", ["none", "registry", "store"])
def test_what_was_asked_to_go_to_a_registry_never_comes_from_the_store(build, fall_back, fallback):
    fall_back(fallback)
    change(build, manifest_digest=DIGEST)
    job = push(build, make_registry())
    assert resolved(build).image is None
    end_badly(taken(job), message="The password is wrong.")
    found = resolved(build)
    assert found.image is None
    assert "The password is wrong." in found.reason


def test_what_was_never_pushed_comes_from_the_store_only_where_that_is_set(build, fall_back):
    change(build, manifest_digest=DIGEST)
    found = resolved(build)
    assert found.image is None
    assert "never pushed to a registry" in found.reason
    fall_back("store")
    found = resolved(build)
    assert (found.digest, found.registry_id) == (DIGEST, None)
    assert found.image is not None
    assert found.image.endswith(f"@{DIGEST}")


def test_a_pin_overrides_the_rule_and_nothing_else_takes_its_place(build):
    production, sandbox = make_registry(), make_registry()
    pushed(build, production)
    pushed(build, sandbox)
    version = the(Version, id=build.version_id)
    change(version, pinned_registry_id=production.id)
    found = resolved(build)
    assert found.registry_id == production.id
    assert found.reason.startswith("The version is pinned to")
    change(production, deleted_at=now_ms())
    found = resolved(build)
    assert found.image is None
    assert "unpin it" in found.reason


def test_a_registry_that_is_elsewhere_now_is_not_asked_for_what_was_pushed_before(build):
    registry = make_registry()
    pushed(build, registry)
    change(registry, registry_url=registry.registry_url.upper())
    assert resolved(build).registry_id == registry.id
    change(registry, registry_url="elsewhere.example.com")
    found = resolved(build)
    assert found.image is None
    assert "address was changed" in found.reason


def test_an_image_that_was_found_missing_is_told_of(build):
    row = pushed(build, make_registry())
    change(row, missing_at=now_ms())
    found = resolved(build)
    assert found.digest == DIGEST
    assert "missing" in found.reason
