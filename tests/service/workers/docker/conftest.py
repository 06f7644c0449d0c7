"""Fixtures for pushes through a real engine: its address, an image, and a proxy that blocks uploads."""

import os
import uuid
from collections.abc import Iterator

import pytest

from dev.services.registry import PrivateRegistry
from tests.service.workers.docker.holding_proxy import HoldingProxy
from tests.unit.workers.builds.sources import archive_of
from workers.docker.connection import engine

MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _engine_address(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)


@pytest.fixture
def small_image() -> Iterator[str]:
    """Return the id of an image with one layer of random bytes, which no registry has."""
    content = archive_of({"random": os.urandom(8 * MEBIBYTE)})
    name = f"small-{uuid.uuid4().hex[:12]}"
    client = engine()
    client.import_image_from_data(content, repository=name)
    image_id = str(client.inspect_image(name)["Id"])
    yield image_id
    client.remove_image(image_id, force=True)


@pytest.fixture
def holding_proxy(registry: PrivateRegistry) -> Iterator[HoldingProxy]:
    """Return a proxy to the registry that blocks a connection after one megabyte."""
    with HoldingProxy(registry.host, hold_after=MEBIBYTE) as proxy:
        yield proxy
