from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry, private_registry, token_registry
from dev.services.workdir import services_directory


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with services_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def password_registry(place: Path) -> Iterator[PrivateRegistry]:
    with private_registry(place / "password", users={"pusher": "secret"}) as registry:
        yield registry


@pytest.fixture(scope="module")
def tls_registry(place: Path) -> Iterator[PrivateRegistry]:
    with private_registry(place / "tls", users={"pusher": "secret"}, tls=True) as registry:
        yield registry


@pytest.fixture(scope="module")
def registry_with_tokens(place: Path) -> Iterator[PrivateRegistry]:
    with token_registry(place / "token") as registry:
        yield registry
