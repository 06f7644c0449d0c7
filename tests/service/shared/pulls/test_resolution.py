"""The source of an image: the latest good push in the order of the requests; no image that was not scanned."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Build, ImagePush, Registry, Version
from shared.pulls.resolution import Resolution, resolve_pull
from shared.registries.first_registry import _latched
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    HASH,
    OTHER_DIGEST,
    build_commit,
    change,
    end_badly,
    end_push,
    make_claim,
    make_registry,
    one_row,
    push,
)
from tests.statements import recorded_statements

pytestmark = pytest.mark.usefixtures("installation")


@pytest.fixture
def build() -> Build:
    """Return a good build of a version that was never pushed."""
    return build_commit(make_algorithm("acme"))


@pytest.fixture
def fallback(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set LONGSHORE_PULL_FALLBACK."""

    def set_to(word: str) -> None:
        monkeypatch.setenv("LONGSHORE_PULL_FALLBACK", word)
        settings.cache_clear()

    return set_to


def resolved(build: Build) -> Resolution:
    with database().reading() as session:
        algorithm = session.get_one(Algorithm, one_row(Algorithm, id=build.algorithm_id).seq)
        return resolve_pull(session, algorithm, session.get_one(Version, one_row(Version, id=build.version_id).seq))


def pushed(build: Build, registry: Registry, digest: str = DIGEST) -> ImagePush:
    """Return the row of a successful push."""
    job = push(build, registry)
    end_push(make_claim(job), digest)
    return one_row(ImagePush, id=job.push_id)


def delete(registry: Registry) -> None:
    change(registry, deleted_at=now_ms())


def pin(build: Build, registry: Registry) -> None:
    change(one_row(Version, id=build.version_id), pinned_registry_id=registry.id)


def test_the_latest_good_push_is_used_by_its_digest(build: Build) -> None:
    production, sandbox = make_registry("prod.example.com/team"), make_registry("sandbox.example.com")
    pushed(build, production)
    assert resolved(build).image == f"prod.example.com/team/acme/hello@{DIGEST}"
    pushed(build, sandbox, OTHER_DIGEST)
    resolution = resolved(build)
    assert (resolution.image, resolution.digest) == (f"sandbox.example.com/acme/hello@{OTHER_DIGEST}", OTHER_DIGEST)
    assert resolution.registry_id == sandbox.id
    assert [(one.registry_id, one.chosen) for one in resolution.considered] == [
        (sandbox.id, True),
        (production.id, False),
    ]
    assert "latest good push went to sandbox.example.com" in resolution.reason
    pushed(build, production)
    assert resolved(build).registry_id == production.id


def test_latest_is_the_order_of_the_requests_and_not_of_completion(build: Build) -> None:
    early, late = make_registry(), make_registry()
    slow, fast = push(build, early), push(build, late)
    end_push(make_claim(fast))
    end_push(make_claim(slow))
    assert resolved(build).registry_id == late.id


def test_a_failed_repush_keeps_the_last_good_push(build: Build) -> None:
    production, sandbox = make_registry(), make_registry()
    pushed(build, production)
    pushed(build, sandbox)
    running = push(build, sandbox)
    assert resolved(build).registry_id == sandbox.id, "while it waits"
    claim = make_claim(running)
    assert resolved(build).registry_id == sandbox.id, "while it runs"
    end_badly(claim)
    assert resolved(build).registry_id == sandbox.id
    end_badly(make_claim(push(build, production)))
    assert resolved(build).registry_id == sandbox.id, "what failed is no good push, however late"


def test_when_its_registry_is_deleted_the_next_latest_is_used_and_the_reason_says_so(build: Build) -> None:
    oldest, older, latest = make_registry(), make_registry(), make_registry()
    for registry in (oldest, older, latest):
        pushed(build, registry)
    delete(latest)
    resolution = resolved(build)
    assert resolution.registry_id == older.id
    assert f"Falls back to {older.registry_url}" in resolution.reason
    assert resolution.considered[0].reason == "The registry was deleted."


def test_a_setting_forbids_any_push_but_the_latest(build: Build, fallback: Callable[[str], None]) -> None:
    fallback("none")
    older, latest = make_registry(), make_registry()
    pushed(build, older)
    pushed(build, latest)
    assert resolved(build).registry_id == latest.id
    delete(latest)
    resolution = resolved(build)
    assert resolution.image is None
    assert "LONGSHORE_PULL_FALLBACK=none" in resolution.reason
    assert "deleted" in resolution.reason


@pytest.mark.parametrize("word", ["auto", "none", "registry", "store"])
def test_a_version_with_a_push_request_never_comes_from_the_store(
    build: Build, fallback: Callable[[str], None], word: str
) -> None:
    fallback(word)
    change(build, manifest_digest=DIGEST)
    registry = make_registry()
    job = push(build, registry)
    assert resolved(build).image is None
    end_badly(make_claim(job), message="The password is wrong.")
    resolution = resolved(build)
    assert (resolution.image, resolution.digest) == (None, None)
    assert "The password is wrong." in resolution.reason
    assert "Push it to a registry" in resolution.reason
    delete(registry)
    assert resolved(build).image is None


@pytest.mark.parametrize("word", ["none", "registry"])
def test_a_version_that_was_never_pushed_does_not_run_by_default(
    build: Build, fallback: Callable[[str], None], word: str
) -> None:
    fallback(word)
    change(build, manifest_digest=DIGEST)
    resolution = resolved(build)
    assert resolution.image is None
    assert "never pushed" in resolution.reason


def test_a_version_that_was_never_pushed_comes_from_the_store_if_allowed(
    build: Build, fallback: Callable[[str], None]
) -> None:
    fallback("store")
    assert "compile it" in resolved(build).reason
    change(build, manifest_digest=DIGEST)
    resolution = resolved(build)
    assert (resolution.image, resolution.registry_id) == (f"acme/hello@{DIGEST}", None)
    assert resolution.considered[0].chosen


def test_by_default_the_store_is_used_until_the_first_registry_and_never_again(build: Build) -> None:
    change(build, manifest_digest=DIGEST)
    assert resolved(build).image == f"acme/hello@{DIGEST}"
    registry = make_registry()
    reason = resolved(build).reason
    assert resolved(build).image is None
    assert "since the first registry was recorded" in reason
    assert "LONGSHORE_PULL_FALLBACK=auto" in reason
    delete(registry)
    assert resolved(build).reason == reason
    _latched.clear()  # as another process, or this one after a restart
    assert resolved(build).reason == reason


def test_the_latch_is_read_from_the_database_until_it_is_closed_and_not_any_more(build: Build) -> None:
    change(build, manifest_digest=DIGEST)

    def registry_reads() -> int:
        with recorded_statements(database()) as statements:
            resolved(build)
        return len([one for one in statements if "FROM registries" in one.text])

    assert (registry_reads(), registry_reads()) == (1, 1)
    make_registry()
    assert (registry_reads(), registry_reads()) == (1, 0)


def test_a_cluster_cannot_pull_from_the_store(
    build: Build, fallback: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(build, manifest_digest=DIGEST)
    monkeypatch.setenv("LONGSHORE_SERVING", "kubernetes")
    for word in ("auto", "store"):
        fallback(word)
        assert resolved(build).image is None
        assert "LONGSHORE_HOME_REGISTRY" in resolved(build).reason


LONG = "/".join(["p" * 60, "q" * 40])


@pytest.mark.parametrize(
    ("before", "after", "options", "same"),
    [
        ("registry.example.com", "https://registry.example.com:443/", {}, True),
        ("registry.example.com", "elsewhere.example.com", {}, False),
        ("registry.example.com/one", "registry.example.com/two", {}, False),
        ("http://one.example.com", "http://two.example.com", {"plain_http": True}, False),
        ("http://one.example.com:80", "http://one.example.com", {"plain_http": True}, True),
        (f"registry.example.com/{LONG}", f"other.example.com/{LONG}", {}, False),
    ],
)
def test_a_registry_with_a_new_address_does_not_have_earlier_pushes(
    build: Build, before: str, after: str, options: dict[str, Any], same: bool
) -> None:
    registry = make_registry(before, **options)
    row = pushed(build, registry)
    change(registry, registry_url=after)
    resolution = resolved(build)
    if same:
        assert resolution.image == f"{row.image.removesuffix(':' + HASH)}@{DIGEST}"
    else:
        assert resolution.image is None
        assert "address was changed" in resolution.reason


def test_an_address_that_makes_the_name_too_long_is_a_reason_and_not_an_error() -> None:
    build = build_commit(make_algorithm("o" * 30, "N" * 63))
    registry = make_registry("registry.example.com")
    pushed(build, registry)
    change(registry, registry_url=".".join(["h" * 60] * 2) + ":5000")
    assert "address was changed" in resolved(build).reason


def test_a_pin_overrides_what_was_pushed_later(build: Build) -> None:
    production, sandbox = make_registry(), make_registry()
    pushed(build, production)
    pushed(build, sandbox)
    pin(build, production)
    resolution = resolved(build)
    assert resolution.registry_id == production.id
    assert f"pinned to {production.registry_url}" in resolution.reason
    assert [one.chosen for one in resolution.considered] == [True, False]
    assert resolution.considered[1].reason == "The version is pinned to another registry."


def test_a_pin_that_cannot_be_followed_has_no_fallback(build: Build) -> None:
    production, sandbox = make_registry(), make_registry()
    pushed(build, sandbox)
    pin(build, production)
    resolution = resolved(build)
    assert resolution.image is None
    assert "never pushed there" in resolution.reason
    pushed(build, production)
    delete(production)
    resolution = resolved(build)
    assert resolution.image is None
    assert "deleted" in resolution.reason
    assert "remove the pin" in resolution.reason


def test_a_pin_to_a_registry_with_a_failed_push_only_is_refused(build: Build) -> None:
    production, sandbox = make_registry(), make_registry()
    pushed(build, sandbox)
    end_badly(make_claim(push(build, production)), message="It broke.")
    pin(build, production)
    assert (resolved(build).image, "It broke." in resolved(build).reason) == (None, True)
