"""The fixtures of the builds' tests: a real engine, a package index with a password, a store; and another owner."""

import uuid
from collections.abc import Callable

import pytest

from shared.cancellation import CancelToken
from tests.directory_store import DirectoryStore
from tests.service.workers.builds.conftest import (
    _engine_address,
    build_containers,
    owner,
    package_index,
    request_for,
    store,
)
from workers.builds.image import BuildRequest, BuiltImage, build_image

__all__ = ["_engine_address", "build_containers", "owner", "package_index", "request_for", "store"]

Built = Callable[[BuildRequest], tuple[BuiltImage, str]]


@pytest.fixture
def other() -> str:
    """Another owner, whom no other test has."""
    return f"other-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def built(store: DirectoryStore) -> Built:
    """Build an image of a request; return it and the log."""

    def build(request: BuildRequest) -> tuple[BuiltImage, str]:
        lines: list[str] = []
        return build_image(request, store, lines.append, CancelToken()), "\n".join(lines)

    return build
