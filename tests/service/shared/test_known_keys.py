"""Recognising callers: asked of the database once a moment, and never longer than that after a key was revoked."""

import pytest
from sqlalchemy import update

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import ApiKey, KeyKind
from shared.keys import KnownKeys, create_key, known_keys, revoke_key
from tests.statements import recorded_statements

pytestmark = pytest.mark.usefixtures("installation")


@pytest.fixture
def key() -> tuple[str, str]:
    """A key's id and its secret."""
    with database().writing() as session:
        made, secret = create_key(session, "acme", label="", kind=KeyKind.ALGORITHM)
        return made.id, secret


def test_a_key_that_was_just_recognised_is_not_asked_for_again(key: tuple[str, str]) -> None:
    keys = KnownKeys(seconds=60)
    with recorded_statements(database()) as statements:
        assert [keys.authenticate_key(database(), key[1]) for _ in range(3)] == [
            keys.authenticate_key(database(), key[1])
        ] * 3
    assert len(statements) == 1


def test_a_key_that_this_process_revokes_is_refused_at_once(key: tuple[str, str]) -> None:
    assert known_keys.authenticate_key(database(), key[1]) is not None
    with database().writing() as session:
        assert revoke_key(session, key[0], "acme")
    assert known_keys.authenticate_key(database(), key[1]) is None


def test_a_key_that_another_process_revoked_is_refused_when_its_moment_is_over(key: tuple[str, str]) -> None:
    keys = KnownKeys(seconds=0)
    assert keys.authenticate_key(database(), key[1]) is not None
    with database().writing() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key[0]).values(revoked_at=now_ms()))
    assert keys.authenticate_key(database(), key[1]) is None


def test_an_unknown_key_is_known_as_soon_as_it_is_there(key: tuple[str, str]) -> None:
    keys = KnownKeys(seconds=60)
    with database().writing() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key[0]).values(revoked_at=now_ms()))
    assert keys.authenticate_key(database(), key[1]) is None
    with database().writing() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key[0]).values(revoked_at=None))
    assert keys.authenticate_key(database(), key[1]) is not None


def test_no_more_keys_are_kept_than_have_room(key: tuple[str, str]) -> None:
    keys = KnownKeys(seconds=60, max_keys=1)
    with database().writing() as session:
        _made, other = create_key(session, "rival", label="", kind=KeyKind.ALGORITHM)
    for secret, owner in ((key[1], "acme"), (other, "rival"), (key[1], "acme")):
        caller = keys.authenticate_key(database(), secret)
        assert caller is not None
        assert caller.owner == owner
