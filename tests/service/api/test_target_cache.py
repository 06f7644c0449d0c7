"""The cache of targets: used while nothing that a target follows from has changed, and never after that."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from api.invocation.target import Target, find_target
from api.invocation.target_cache import TargetCache
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Build, ImagePush, Instance, InstanceState, Registry, Version
from shared.db.models.algorithms import PublishState
from shared.errors import RequestError
from shared.invocation.versions import find_called_version
from shared.keys import Caller
from tests.rows import (
    HASH,
    OTHER_DIGEST,
    build_commit,
    change,
    end_push,
    fresh,
    make_claim,
    make_registry,
    one_row,
    push,
)
from tests.service.api.invocation import Api
from tests.service.api.serving import pending_instance, pushed_version, ready
from tests.statements import recorded_statements

ACME = Caller("key", "acme", admin=False)
RIVAL = Caller("key", "rival", admin=False)
NUMBER = "1.0.0"


class Calls:
    """A process that calls `acme/Hello`, and how often it had to find the target."""

    def __init__(self) -> None:
        self.finds = 0
        self._cache = TargetCache()

    def find(self, version: str = HASH, caller: Caller = ACME) -> Target:
        def find() -> Target:
            self.finds += 1
            with database().reading() as session:
                found = find_target(session, *find_called_version(session, caller, "acme/Hello", version))
            assert isinstance(found, Target)
            return found

        cached = self._cache.find(caller, "acme/Hello", version, find)
        assert isinstance(cached, Target)
        return cached


@pytest.fixture
def version(acme: Api) -> Version:
    """A version with an instance that takes calls."""
    acme.make_algorithm("acme")
    algorithm = one_row(Algorithm, owner="acme", name="Hello")
    registry = make_registry("production.example.com")
    version = pushed_version(
        algorithm, registry, semantic_version=NUMBER, publish_state=PublishState.PUBLISHED, callability="public"
    )
    ready(pending_instance(algorithm, version))
    return version


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.mark.parametrize("named", [HASH, NUMBER])
@pytest.mark.usefixtures("version")
def test_a_warm_call_costs_one_query(calls: Calls, named: str) -> None:
    first = calls.find(named)
    with recorded_statements(database()) as statements:
        assert calls.find(named) == first
    assert (calls.finds, len(statements)) == (1, 1)


def test_each_caller_is_judged_by_itself(version: Version, calls: Calls) -> None:
    calls.find()
    change(version, callability="private")
    calls.find()
    with pytest.raises(RequestError):
        calls.find(caller=RIVAL)


def push_elsewhere(version: Version) -> None:
    job = push(one_row(Build, version_id=version.id), make_registry("sandbox.example.com"))
    end_push(make_claim(job), OTHER_DIGEST)


def push_there_again(version: Version) -> None:
    end_push(make_claim(push(one_row(Build, version_id=version.id), one_row(Registry))), OTHER_DIGEST)


def serve_elsewhere(_version: Version) -> None:
    change(one_row(Instance), endpoint="unix:another")


CHANGES: dict[str, Callable[[Version], None]] = {
    "a push to another registry": push_elsewhere,
    "another image pushed to the same": push_there_again,
    "a pin": lambda version: change(version, pinned_registry_id=one_row(Registry).id),
    "the registry deleted": lambda _version: change(one_row(Registry), deleted_at=now_ms()),
    "the registry moved": lambda _version: change(one_row(Registry), registry_url="moved.example.com"),
    "another kind of network": lambda _version: change(one_row(Algorithm), settings={"network_access": "isolated"}),
    "the serving drains": lambda _version: change(one_row(Instance), state=InstanceState.DRAINING),
    "the serving is elsewhere": serve_elsewhere,
    "another callability": lambda version: change(version, callability="private"),
    "not published": lambda version: change(version, publish_state=PublishState.NO),
    "the algorithm deleted": lambda _version: change(one_row(Algorithm), deleted_at=now_ms()),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_anything_that_it_follows_from_ends_its_use(
    version: Version, calls: Calls, changed: Callable[[Version], None]
) -> None:
    calls.find()
    changed(version)
    with suppress(RequestError):
        calls.find()
    assert calls.finds == 2


@pytest.fixture
def stored_version(acme: Api) -> Version:
    """A version that was never pushed, with an instance of its image in the store, before any registry was recorded."""
    acme.make_algorithm("acme")
    algorithm = one_row(Algorithm, owner="acme", name="Hello")
    change(build_commit(algorithm), manifest_digest=OTHER_DIGEST)
    version = one_row(Version)
    ready(pending_instance(algorithm, version))
    return version


def test_a_warm_call_of_an_image_in_the_store_costs_two_queries(stored_version: Version, calls: Calls) -> None:
    first = calls.find(stored_version.git_hash)
    with recorded_statements(database()) as statements:
        assert calls.find() == first
    assert (calls.finds, len(statements)) == (1, 2)


def build_again() -> None:
    change(build_commit(one_row(Algorithm), force=True), manifest_digest=f"sha256:{'f' * 64}")


CHANGES_OF_STORED: dict[str, Callable[[Version], object]] = {
    "the first registry": lambda _version: make_registry("production.example.com"),
    "another image built": lambda _version: build_again(),
    "its image gone": lambda _version: change(one_row(Build), manifest_digest=None),
    "a push requested": lambda version: push(one_row(Build, version_id=version.id), make_registry("x.example.com")),
    "another kind of network": lambda _version: change(one_row(Algorithm), settings={"network_access": "isolated"}),
}


@pytest.mark.parametrize("changed", CHANGES_OF_STORED.values(), ids=CHANGES_OF_STORED.keys())
def test_a_change_ends_the_use_of_an_image_in_the_store(
    stored_version: Version, calls: Calls, changed: Callable[[Version], object]
) -> None:
    calls.find()
    changed(stored_version)
    with suppress(RequestError, AssertionError):  # an awaited push is no target
        calls.find()
    assert calls.finds == 2


def test_a_version_that_was_published_with_one_build_stays_with_it(stored_version: Version, calls: Calls) -> None:
    change(stored_version, build_id=one_row(Build).id)
    first = calls.find()
    build_again()
    assert calls.find() == first
    assert calls.finds == 1


def test_a_push_and_a_pin_change_the_target_of_the_next_call(version: Version, calls: Calls) -> None:
    production = one_row(Registry).id
    assert calls.find().desired.registry_id == production
    push_elsewhere(version)
    assert calls.find().desired.image.startswith("sandbox.example.com/")
    change(fresh(version), pinned_registry_id=production)
    assert calls.find().desired.registry_id == production


@pytest.mark.usefixtures("version")
def test_a_target_without_an_instance_is_not_cached(calls: Calls) -> None:
    change(one_row(Instance), state=InstanceState.STOPPED)
    assert calls.find().instance is None
    assert calls.find().instance is None
    assert calls.finds == 2


@pytest.mark.usefixtures("version")
def test_the_target_of_a_pattern_is_not_cached(calls: Calls) -> None:
    calls.find("1.*")
    calls.find("1.*")
    assert calls.finds == 2


@pytest.mark.usefixtures("version")
def test_a_target_that_changes_while_it_is_found_is_not_cached() -> None:
    cache = TargetCache()
    finds = 0

    def find() -> Target:
        nonlocal finds
        finds += 1
        with database().reading() as session:
            found = find_target(session, *find_called_version(session, ACME, "acme/Hello", HASH))
        if finds == 1:
            change(one_row(ImagePush), last_success_seq=10_000)
        assert isinstance(found, Target)
        return found

    for _ in range(3):
        cache.find(ACME, "acme/Hello", HASH, find)
    assert finds == 2
