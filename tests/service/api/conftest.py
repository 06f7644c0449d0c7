import tempfile
from collections.abc import Iterator

import pytest
from flask import Flask

from api.app import create_app
from shared.db.models import Algorithm, KeyKind, Version
from shared.db.models.algorithms import PublishState
from shared.settings import settings
from tests.git_service import make_key
from tests.rows import one_row
from tests.service.api.invocation import Api, owner_api
from tests.service.api.serving import pushed_version


@pytest.fixture(scope="session")
def any_app() -> Flask:
    """The application: which database it speaks to is asked anew in each test."""
    return create_app()


@pytest.fixture
def app(any_app: Flask, installation: str) -> Flask:  # noqa: ARG001 - it comes first
    """The application, on an empty database of each kind."""
    return any_app


@pytest.fixture
def admin(app: Flask) -> Api:
    """The interface under an admin key."""
    return Api(app, make_key("admin", KeyKind.ADMIN))


@pytest.fixture
def acme(app: Flask, admin: Api) -> Api:
    """The interface under a key of the owner `acme`."""
    return owner_api(app, admin, "acme")


@pytest.fixture
def rival(app: Flask, admin: Api) -> Api:
    """The interface under a key of the owner `rival`."""
    return owner_api(app, admin, "rival")


@pytest.fixture
def short_serving_dir(
    installation: str,  # noqa: ARG001 - it comes first
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Sockets whose paths are short enough to be bound: 107 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="serving-") as directory:
        monkeypatch.setenv("LONGSHORE_SERVING_DIR", directory)
        settings.cache_clear()
        yield


@pytest.fixture
def algorithm(acme: Api) -> Algorithm:
    """The algorithm `acme/Hello`."""
    acme.make_algorithm("acme")
    return one_row(Algorithm, owner="acme", name="Hello")


@pytest.fixture
def version(algorithm: Algorithm) -> Version:
    """Its version 1.0.0, which was built and pushed, and which everybody may call."""
    return pushed_version(
        algorithm, semantic_version="1.0.0", publish_state=PublishState.PUBLISHED, callability="public"
    )
