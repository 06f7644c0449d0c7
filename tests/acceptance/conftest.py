"""One running system for all acceptance tests, which share a test process."""

from collections.abc import Iterator

import pytest

from dev.services.redis import PrivateRedis, private_redis
from dev.services.registry import PrivateRegistry
from tests.acceptance.system import System, longshore_up

collect_ignore = ["sources"]  # they have tests of their own


@pytest.fixture(scope="package")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """A Redis that only the system uses, so that tests can watch all its messages."""
    with private_redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture(scope="package")
def system(
    tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str, own_redis: PrivateRedis
) -> Iterator[System]:
    """A running Longshore, on SQLite."""
    with longshore_up(
        tmp_path_factory.mktemp("system"),
        DOCKER_HOST=docker_host,
        LONGSHORE_BASE_IMAGE=base_image,
        LONGSHORE_REDIS_URL=own_redis.url(),
        LONGSHORE_RETRY_DELAYS="1,1",
        LONGSHORE_SOURCE_MAX_BYTES=str(64 * 1024 * 1024),
        LONGSHORE_SERVING_NETWORK="host",  # the private engine has no other
    ) as running_system:
        yield running_system


@pytest.fixture(scope="package")
def registryless(
    tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str, redis_url: str
) -> Iterator[System]:
    """A system in which no registry was ever recorded: what was built runs from its image store."""
    with longshore_up(
        tmp_path_factory.mktemp("registryless"),
        DOCKER_HOST=docker_host,
        LONGSHORE_BASE_IMAGE=base_image,
        LONGSHORE_REDIS_URL=redis_url,
        LONGSHORE_SERVING_NETWORK="host",  # the private engine has no other
        LONGSHORE_MAX_WAIT_SECONDS="300",
    ) as running_system:
        yield running_system


@pytest.fixture(scope="package")
def registry_id(system: System, registry: PrivateRegistry) -> str:
    """The first registry, recorded with its own credentials."""
    return system.record_registry(registry.host, "pusher", registry.users["pusher"])


@pytest.fixture(scope="package")
def second_registry_id(system: System, second_registry: PrivateRegistry) -> str:
    """The second registry, recorded without credentials: every push brings its own."""
    return system.record_registry(second_registry.host)


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> str:
    """An owner for one test."""
    return "o_" + str(request.node.name).partition("[")[0].removeprefix("test_")[:26].rstrip("_")


@pytest.fixture
def owner_key(system: System, owner: str) -> str:
    """A key of that owner."""
    return system.owner_key(owner)
