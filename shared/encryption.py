"""Encryption of secrets at rest with AES-256-GCM (NIST SP 800-38D).

A ciphertext begins with the id of its key. The identity of its row is the associated data, so it cannot be decrypted
after a copy to another row. Every key decrypts, the first one encrypts, with a fresh random 96-bit nonce each time.
"""

import base64
import binascii
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.errors import LongshoreError
from shared.settings import Settings, SettingsError, settings

NONCE_BYTES = 12
KEY_FILE = "secret-keys"


class DecryptionError(LongshoreError):
    """Raised when a ciphertext cannot be decrypted: its key is gone, or it belongs to another row."""


class Keyring:
    """The keys of this installation, by id. The first one encrypts."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise SettingsError(
                "LONGSHORE_SECRET_KEYS: no key; set it to ID:BASE64 with 32 random bytes "
                "(`longshore secrets new-key` prints one)"
            )
        self._keys = dict(keys)
        self.primary_key_id = next(iter(self._keys))

    def encrypt(self, secret: Mapping[str, str], *, identity: str) -> str:
        """Return a small document of secrets, encrypted for the row that `identity` names."""
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = AESGCM(self._keys[self.primary_key_id]).encrypt(
            nonce, json.dumps(secret).encode(), identity.encode()
        )
        return f"{self.primary_key_id}.{base64.b64encode(nonce + ciphertext).decode()}"

    def decrypt(self, ciphertext: str, *, identity: str) -> dict[str, str]:
        """Return the document that `encrypt` was given for the same identity.

        Raises:
            DecryptionError: the key is unknown, or the value was encrypted for another row.
        """
        key_id, _, encoded = ciphertext.partition(".")
        key = self._keys.get(key_id)
        if key is None:
            raise DecryptionError(f"encrypted with key {key_id!r}, which is not among LONGSHORE_SECRET_KEYS")
        try:
            raw = base64.b64decode(encoded, validate=True)
            plain = AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], identity.encode())
        except (InvalidTag, binascii.Error, ValueError):
            raise DecryptionError("the stored value was changed, or was encrypted for another row") from None
        document: dict[str, str] = json.loads(plain)
        return document

    def digest(self, message: bytes, *, purpose: str) -> str:
        """Return KEY_ID.HMAC, the HMAC-SHA256 under a key derived for the purpose."""
        return f"{self.primary_key_id}.{self._mac(self.primary_key_id, message, purpose)}"

    def verify_digest(self, digest: str, message: bytes, *, purpose: str) -> bool:
        """Return whether `digest` was made of this message and purpose by a key that is still known."""
        key_id, _, given = digest.partition(".")
        return key_id in self._keys and secrets.compare_digest(self._mac(key_id, message, purpose), given)

    def _mac(self, key_id: str, message: bytes, purpose: str) -> str:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=purpose.encode()).derive(self._keys[key_id])
        return hmac.digest(derived, message, "sha256").hex()


def new_key() -> str:
    """Return a fresh key in the form of LONGSHORE_SECRET_KEYS: ID:BASE64."""
    return f"k{secrets.token_hex(3)}:{base64.b64encode(os.urandom(32)).decode()}"


def ensure_key_file(data_dir: Path) -> Path:
    """Create the key file of a data directory, readable by its owner only, unless it exists."""
    path = data_dir / KEY_FILE
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key() + "\n")
    return path


def load_keyring(configured: Settings) -> Keyring:
    """Return the keys of the settings, else of the data directory's key file.

    Raises:
        SettingsError: there are none, or the file is invalid.
    """
    keys = {key_id: value.get_secret_value() for key_id, value in configured.secret_keys.items()}
    path = configured.data_dir / KEY_FILE
    if not keys and path.is_file():
        keys = {
            key_id: value.get_secret_value()
            for key_id, value in Settings(secret_keys=",".join(path.read_text().split())).secret_keys.items()
        }
    return Keyring({key_id: base64.b64decode(encoded) for key_id, encoded in keys.items()})


@cache
def keyring() -> Keyring:
    return load_keyring(settings())
