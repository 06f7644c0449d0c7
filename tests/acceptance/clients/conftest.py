"""One running system for the tests of published clients.

No published client can send push credentials, so the system has a default registry. It is recorded as the platform's
documentation asks, with an account that may only read; the default's own credentials may push.
"""

from collections.abc import Iterator

import pytest

from dev.services.redis import private_redis
from dev.services.registry import PrivateRegistry
from tests.acceptance.clients.tls import API_HOST, PublicNames, public_names
from tests.acceptance.system import System, longshore_up


@pytest.fixture(scope="package")
def system(
    tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str, token_registry: PrivateRegistry
) -> Iterator[System]:
    """A running Longshore with a default registry, whose public URL has a name that only the test's proxy knows."""
    with (
        private_redis(tmp_path_factory.mktemp("redis")) as redis,
        longshore_up(
            tmp_path_factory.mktemp("system"),
            DOCKER_HOST=docker_host,
            LONGSHORE_BASE_IMAGE=base_image,
            LONGSHORE_REDIS_URL=redis.url(),
            LONGSHORE_PUBLIC_URL=f"https://{API_HOST}",
            LONGSHORE_SERVING_NETWORK="host",  # the private engine has no other
        ) as running_system,
    ):
        recorded = running_system.call(
            "POST",
            "/v1/registries",
            {
                "registry_url": token_registry.host,
                "registry_username": "reader",
                "registry_password": token_registry.users["reader"],
                "push_username": "writer",
                "push_password": token_registry.users["writer"],
                "default": True,
            },
        )
        assert recorded.status == 200, recorded.text
        yield running_system


@pytest.fixture(scope="package")
def names(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicNames]:
    """The system behind TLS, under its public names."""
    with public_names(system.url, tmp_path_factory.mktemp("tls")) as made:
        yield made
