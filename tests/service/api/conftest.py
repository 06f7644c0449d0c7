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
    """The application. It looks up its database again in each test."""
    return create_app()


@pytest.fixture
def app(any_app: Flask, installation: str) -> Flask:  # noqa: ARG001 - it must run first
    """The application with an empty database of each kind."""
    return any_app


@pytest.fixture
def admin(app: Flask) -> Api:
    """A client with an admin key."""
    return Api(app, make_key("admin", KeyKind.ADMIN))


@pytest.fixture
def acme(app: Flask, admin: Api) -> Api:
    """A client with a key of the owner `acme`."""
    return owner_api(app, admin, "acme")


@pytest.fixture
def rival(app: Flask, admin: Api) -> Api:
    """A client with a key of the owner `rival`."""
    return owner_api(app, admin, "rival")


@pytest.fixture
def short_serving_dir(
    installation: str,  # noqa: ARG001 - it must run first
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """A directory with a short path: paths of unix sockets have at most 107 bytes (unix(7))."""
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
    """The version 1.0.0 of the algorithm, built, pushed and public."""
    return pushed_version(
        algorithm, semantic_version="1.0.0", publish_state=PublishState.PUBLISHED, callability="public"
    )
