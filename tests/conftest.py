"""Fixtures for the real parts. Each is started when a test first asks for it; a run of unit tests starts none."""

import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from dev.services.postgres import PrivatePostgres
from dev.services.registry import PrivateRegistry
from tests import real_parts


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile("longshore", deadline=None)  # a busy machine is no failure
    hypothesis.settings.load_profile("longshore")
    real_parts.begin(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    real_parts.end(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each file's tests stay in one test process; the acceptance tests share one running system."""
    for item in items:
        group = "acceptance" if "acceptance" in item.path.parts else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def parts(pytestconfig: pytest.Config) -> real_parts.RealParts:
    """The run's parts, shared by all its test processes."""
    return pytestconfig.stash[real_parts.PARTS]


@pytest.fixture(scope="session")
def docker_host(parts: real_parts.RealParts) -> str:
    """Address of a Docker engine: the one that `DOCKER_HOST` names or that runs here, else a private one."""
    return str(parts.part("engine")["docker_host"])


@pytest.fixture(scope="session")
def base_image(parts: real_parts.RealParts) -> str:
    """Name of an image on that engine, with python3, venv and pip."""
    return str(parts.part("base_image")["name"])


@pytest.fixture(scope="session")
def registry(parts: real_parts.RealParts) -> PrivateRegistry:
    """A registry with the user `pusher`, whose password is `secret`."""
    return PrivateRegistry(**parts.part("registry"))


@pytest.fixture(scope="session")
def second_registry(parts: real_parts.RealParts) -> PrivateRegistry:
    """Another one like `registry`."""
    return PrivateRegistry(**parts.part("second_registry"))


@pytest.fixture(scope="session")
def token_registry(parts: real_parts.RealParts) -> PrivateRegistry:
    """A registry with tokens: `writer` may pull, push and delete, `reader` may pull."""
    return PrivateRegistry(**parts.part("token_registry"))


@pytest.fixture(scope="session")
def tls_registry(parts: real_parts.RealParts) -> PrivateRegistry:
    """A registry with `pusher` over HTTPS, certified by an authority that nobody trusts but who reads its PEM."""
    return PrivateRegistry(**parts.part("tls_registry"))


@pytest.fixture(scope="session")
def redis_url(parts: real_parts.RealParts, pytestconfig: pytest.Config) -> str:
    """A Redis database that no other test process uses."""
    return f"redis://127.0.0.1:{parts.part('redis')['port']}/{real_parts.process_number(pytestconfig)}"


@pytest.fixture(scope="session")
def postgres(parts: real_parts.RealParts) -> PrivatePostgres:
    """A PostgreSQL server, for databases of one's own."""
    return PrivatePostgres(**parts.part("postgres"))


@pytest.fixture(scope="session")
def postgres_url(postgres: PrivatePostgres) -> str:
    """A PostgreSQL database that began empty and that no other test process uses."""
    return postgres.create_database(f"process_{uuid.uuid4().hex[:12]}")


@pytest.fixture
def empty_postgres_url(postgres: PrivatePostgres) -> Iterator[str]:
    """An empty PostgreSQL database for one test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)
