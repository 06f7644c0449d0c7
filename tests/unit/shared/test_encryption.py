"""Rule 5: what is sealed opens for its own row only, with a key that is known."""

import base64
import os

import pytest

from shared.encryption import DecryptionError, Keyring
from shared.settings import SettingsError

SECRET = {"username": "pusher", "password": "open sesame"}


def keys(*names: str) -> dict[str, bytes]:
    return {name: name.encode().ljust(32, b"-") for name in names}


def test_what_is_sealed_opens_for_the_same_row() -> None:
    ring = Keyring(keys("k1"))
    assert ring.decrypt(ring.encrypt(SECRET, identity="jobs/1/credentials"), identity="jobs/1/credentials") == SECRET


def test_it_opens_for_no_other_row() -> None:
    ring = Keyring(keys("k1"))
    with pytest.raises(DecryptionError, match="another row"):
        ring.decrypt(ring.encrypt(SECRET, identity="jobs/1/credentials"), identity="jobs/2/credentials")


def test_it_shows_nothing() -> None:
    sealed = Keyring(keys("k1")).encrypt(SECRET, identity="i")
    assert "sesame" not in sealed
    assert b"sesame" not in base64.b64decode(sealed.partition(".")[2])


def test_equal_secrets_are_sealed_differently() -> None:
    ring = Keyring(keys("k1"))
    assert ring.encrypt(SECRET, identity="i") != ring.encrypt(SECRET, identity="i")


def test_after_a_rotation_the_new_key_seals_and_the_old_one_opens() -> None:
    old, both = Keyring(keys("k1")), Keyring(keys("k2", "k1"))
    sealed = old.encrypt(SECRET, identity="i")
    assert both.decrypt(sealed, identity="i") == SECRET
    again = both.encrypt(SECRET, identity="i")
    assert Keyring(keys("k2")).decrypt(again, identity="i") == SECRET


def test_without_its_key_nothing_opens() -> None:
    sealed = Keyring(keys("k1")).encrypt(SECRET, identity="i")
    with pytest.raises(DecryptionError, match="'k1'"):
        Keyring(keys("k2")).decrypt(sealed, identity="i")


def test_another_key_of_the_same_name_does_not_open() -> None:
    sealed = Keyring(keys("k1")).encrypt(SECRET, identity="i")
    with pytest.raises(DecryptionError):
        Keyring({"k1": os.urandom(32)}).decrypt(sealed, identity="i")


@pytest.mark.parametrize("changed", ["k1.", "k1.AAAA", "k1.no base64", "", "nothing", "k1." + "A" * 100])
def test_what_was_never_sealed_does_not_open(changed: str) -> None:
    with pytest.raises(DecryptionError):
        Keyring(keys("k1")).decrypt(changed, identity="i")


def test_a_ring_has_a_key() -> None:
    with pytest.raises(SettingsError, match="LONGSHORE_SECRET_KEYS"):
        Keyring({})


def test_a_digest_is_of_its_message_and_purpose_under_any_known_key() -> None:
    digest = Keyring(keys("k1")).digest(b"body", purpose="idempotency")
    both = Keyring(keys("k2", "k1"))
    assert both.verify_digest(digest, b"body", purpose="idempotency")
    assert not both.verify_digest(digest, b"other", purpose="idempotency")
    assert not both.verify_digest(digest, b"body", purpose="other")
    assert not Keyring(keys("k2")).verify_digest(digest, b"body", purpose="idempotency")
