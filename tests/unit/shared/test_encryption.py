"""Encryption (rule 5): a ciphertext is decrypted for its own row only, with a known key."""

import base64
import os

import pytest

from shared.encryption import DecryptionError, Keyring
from shared.settings import SettingsError

SECRET = {"username": "pusher", "password": "open sesame"}


def keys(*names: str) -> dict[str, bytes]:
    return {name: name.encode().ljust(32, b"-") for name in names}


def test_a_ciphertext_is_decrypted_for_the_same_row() -> None:
    ring = Keyring(keys("k1"))
    assert ring.decrypt(ring.encrypt(SECRET, identity="jobs/1/credentials"), identity="jobs/1/credentials") == SECRET


def test_a_ciphertext_is_not_decrypted_for_another_row() -> None:
    ring = Keyring(keys("k1"))
    with pytest.raises(DecryptionError, match="another row"):
        ring.decrypt(ring.encrypt(SECRET, identity="jobs/1/credentials"), identity="jobs/2/credentials")


def test_a_ciphertext_does_not_contain_the_secret() -> None:
    sealed = Keyring(keys("k1")).encrypt(SECRET, identity="i")
    assert "sesame" not in sealed
    assert b"sesame" not in base64.b64decode(sealed.partition(".")[2])


def test_equal_secrets_have_different_ciphertexts() -> None:
    ring = Keyring(keys("k1"))
    assert ring.encrypt(SECRET, identity="i") != ring.encrypt(SECRET, identity="i")


def test_after_a_rotation_the_new_key_encrypts_and_the_old_one_still_decrypts() -> None:
    old, both = Keyring(keys("k1")), Keyring(keys("k2", "k1"))
    sealed = old.encrypt(SECRET, identity="i")
    assert both.decrypt(sealed, identity="i") == SECRET
    again = both.encrypt(SECRET, identity="i")
    assert Keyring(keys("k2")).decrypt(again, identity="i") == SECRET


def test_a_ciphertext_is_not_decrypted_without_its_key() -> None:
    sealed = Keyring(keys("k1")).encrypt(SECRET, identity="i")
    with pytest.raises(DecryptionError, match="'k1'"):
        Keyring(keys("k2")).decrypt(sealed, identity="i")


def test_a_ciphertext_is_not_decrypted_with_another_key_of_the_same_id() -> None:
    sealed = Keyring(keys("k1")).encrypt(SECRET, identity="i")
    with pytest.raises(DecryptionError):
        Keyring({"k1": os.urandom(32)}).decrypt(sealed, identity="i")


@pytest.mark.parametrize("changed", ["k1.", "k1.AAAA", "k1.no base64", "", "nothing", "k1." + "A" * 100])
def test_other_text_is_not_decrypted(changed: str) -> None:
    with pytest.raises(DecryptionError):
        Keyring(keys("k1")).decrypt(changed, identity="i")


def test_a_keyring_needs_a_key() -> None:
    with pytest.raises(SettingsError, match="LONGSHORE_SECRET_KEYS"):
        Keyring({})


def test_a_digest_is_of_its_message_and_purpose_under_any_known_key() -> None:
    digest = Keyring(keys("k1")).digest(b"body", purpose="idempotency")
    both = Keyring(keys("k2", "k1"))
    assert both.verify_digest(digest, b"body", purpose="idempotency")
    assert not both.verify_digest(digest, b"other", purpose="idempotency")
    assert not both.verify_digest(digest, b"body", purpose="other")
    assert not Keyring(keys("k2")).verify_digest(digest, b"body", purpose="idempotency")
