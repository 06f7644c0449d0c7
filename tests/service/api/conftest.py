import pytest
from flask import Flask

from api.app import create_app
from shared.models import KeyKind
from tests.git_service import make_key
from tests.service.api.calling import Api, owner_api


@pytest.fixture(scope="session")
def any_app() -> Flask:
    """The application: which database it speaks to is asked anew in each test."""
    return create_app()


@pytest.fixture
def app(any_app, installation) -> Flask:
    """The application, on an empty database of each kind."""
    return any_app


@pytest.fixture
def admin(app) -> Api:
    """The interface under an admin key."""
    return Api(app, make_key("admin", KeyKind.ADMIN))


@pytest.fixture
def acme(app, admin) -> Api:
    """The interface under a key of the owner `acme`."""
    return owner_api(app, admin, "acme")


@pytest.fixture
def rival(app, admin) -> Api:
    """The interface under a key of the owner `rival`."""
    return owner_api(app, admin, "rival")
