"""Fixtures for real services. Each is started at its first use; a run of unit tests starts none."""

import uuid
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from dev.services.postgres import PrivatePostgres
from dev.services.python_bases import can_make
from dev.services.registry import PrivateRegistry
from tests import real_services

GROUPS = {
    "acceptance": ("tests/acceptance/",),
    "runner": (
        "tests/service/api/test_calls.py",
        "tests/service/api/test_calls_that_end_badly.py",
        "tests/service/cli/test_stopping_calls.py",
        "tests/unit/workers/runner/",
    ),
}
"""Files whose tests run in one test process: they share a running system, or a lock of the machine's only runner."""


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile("longshore", deadline=None)  # slow on a busy machine is not a failure
    hypothesis.settings.load_profile("longshore")
    real_services.begin(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    real_services.end(config)


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Give all tests of a file, or of a group of files, to one test process."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((group for group, paths in GROUPS.items() if path.startswith(paths)), path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling:
    config.option.loadscopereorder = False  # the acceptance tests take longest and are collected first
    return FileScheduling(config, log)


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> real_services.RealServices:
    """The run's services, shared by all its test processes."""
    return pytestconfig.stash[real_services.SERVICES]


@pytest.fixture(scope="session")
def docker_host(services: real_services.RealServices) -> str:
    """The address of a Docker engine: of `DOCKER_HOST`, or one that runs here, else of a private one."""
    return str(services.get("engine")["docker_host"])


@pytest.fixture(scope="session")
def base_image(services: real_services.RealServices) -> str:
    """The name of an image on that engine, with python3, venv and pip."""
    return str(services.get("base_image")["name"])


@pytest.fixture(scope="session")
def python_base(services: real_services.RealServices) -> Callable[[str], str]:
    """Gives the name of an image on that engine with a version of Python, such as `3.8`; skips where none can be made.

    The first one of a version takes half a minute; it is kept for later runs.
    """

    def name_of(version: str) -> str:
        if not can_make(version):
            pytest.skip(f"neither Debian nor this machine has Python {version}")
        return str(services.get(f"python{version}")["name"])

    return name_of


@pytest.fixture(scope="session")
def registry(services: real_services.RealServices) -> PrivateRegistry:
    """A registry with the user `pusher`, whose password is `secret`."""
    return PrivateRegistry(**services.get("registry"))


@pytest.fixture(scope="session")
def second_registry(services: real_services.RealServices) -> PrivateRegistry:
    """Another one like `registry`."""
    return PrivateRegistry(**services.get("second_registry"))


@pytest.fixture(scope="session")
def token_registry(services: real_services.RealServices) -> PrivateRegistry:
    """A registry with tokens: `writer` may pull, push and delete, `reader` may pull."""
    return PrivateRegistry(**services.get("token_registry"))


@pytest.fixture(scope="session")
def tls_registry(services: real_services.RealServices) -> PrivateRegistry:
    """A registry with `pusher` over HTTPS; its certificate is of an authority that only its PEM file makes trusted."""
    return PrivateRegistry(**services.get("tls_registry"))


@pytest.fixture(scope="session")
def redis_url(services: real_services.RealServices, pytestconfig: pytest.Config) -> str:
    """A Redis database that no other test process uses."""
    return f"redis://127.0.0.1:{services.get('redis')['port']}/{real_services.process_number(pytestconfig)}"


@pytest.fixture(scope="session")
def postgres(services: real_services.RealServices) -> PrivatePostgres:
    """A PostgreSQL server, on which tests create databases."""
    return PrivatePostgres(**services.get("postgres"))


@pytest.fixture(scope="session")
def postgres_url(postgres: PrivatePostgres) -> str:
    """A PostgreSQL database that was empty at first and that no other test process uses."""
    return postgres.create_database(f"process_{uuid.uuid4().hex[:12]}")


@pytest.fixture
def empty_postgres_url(postgres: PrivatePostgres) -> Iterator[str]:
    """An empty PostgreSQL database for one test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)
