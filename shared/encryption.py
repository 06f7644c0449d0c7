"""Secrets at rest: AES-256-GCM, with the key's id in the ciphertext and the row's identity as associated data.

A ciphertext that is moved to another row does not open there. Several keys may open, the first one seals
(NIST SP 800-38D; a fresh random 96-bit nonce each time).
"""

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.settings import Settings, SettingsError, settings

NONCE_BYTES = 12
KEY_FILE = "secret-keys"


class DecryptionError(Exception):
    """A sealed value does not open: its key is gone, or it belongs to another row."""


class Keyring:
    """The keys of this installation, by id; the first one seals."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise SettingsError(
                "LONGSHORE_SECRET_KEYS: no key; set it to ID:BASE64 with 32 random bytes "
                "(`longshore secrets new-key` prints one)"
            )
        self._keys = dict(keys)
        self.sealing_id = next(iter(self._keys))

    def seal(self, secret: Mapping[str, str], *, identity: str) -> str:
        """Seal a small document of secrets for the one row that `identity` names."""
        nonce = os.urandom(NONCE_BYTES)
        plain = json.dumps(secret).encode()
        sealed = AESGCM(self._keys[self.sealing_id]).encrypt(nonce, plain, identity.encode())
        return f"{self.sealing_id}.{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, identity: str) -> dict[str, str]:
        """Open what `seal` made for the same identity.

        Raises:
            DecryptionError: the key is unknown, or the value was sealed for another row.
        """
        key_id, _, encoded = sealed.partition(".")
        key = self._keys.get(key_id)
        if key is None:
            raise DecryptionError(f"sealed with key {key_id!r}, which is not among LONGSHORE_SECRET_KEYS")
        try:
            raw = base64.b64decode(encoded, validate=True)
            plain = AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], identity.encode())
        except (InvalidTag, binascii.Error, ValueError):
            raise DecryptionError("the sealed value was changed, or was sealed for another row") from None
        opened: dict[str, str] = json.loads(plain)
        return opened

    def digest(self, message: bytes, *, purpose: str) -> str:
        """A keyed digest (HMAC-SHA256 under a key derived for the purpose), with the key's id in front."""
        return f"{self.sealing_id}.{self._mac(self.sealing_id, message, purpose).finalize().hex()}"

    def verify_digest(self, digest: str, message: bytes, *, purpose: str) -> bool:
        """Whether `digest` was made of this message and purpose, by a key that is still known."""
        key_id, _, given = digest.partition(".")
        if key_id not in self._keys:
            return False
        return secrets.compare_digest(self._mac(key_id, message, purpose).finalize().hex(), given)

    def _mac(self, key_id: str, message: bytes, purpose: str) -> hmac.HMAC:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=purpose.encode()).derive(self._keys[key_id])
        mac = hmac.HMAC(derived, hashes.SHA256())
        mac.update(message)
        return mac


def new_key() -> str:
    """A fresh key as LONGSHORE_SECRET_KEYS takes it: ID:BASE64."""
    return f"k{secrets.token_hex(3)}:{base64.b64encode(os.urandom(32)).decode()}"


def ensure_key_file(data_dir: Path) -> Path:
    """Make the key file of a data directory, readable by its owner only, unless it is there."""
    path = data_dir / KEY_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key() + "\n")
    return path


def load_keyring(configured: Settings) -> Keyring:
    """The keys from the settings, else from the data directory's key file.

    Raises:
        SettingsError: there is neither, or the file cannot be used.
    """
    keys = {key_id: value.get_secret_value() for key_id, value in configured.secret_keys.items()}
    path = configured.data_dir / KEY_FILE
    if not keys and path.is_file():
        lines = ",".join(path.read_text().split())
        keys = {key_id: value.get_secret_value() for key_id, value in Settings(secret_keys=lines).secret_keys.items()}
    return Keyring({key_id: base64.b64decode(encoded) for key_id, encoded in keys.items()})


@cache
def keyring() -> Keyring:
    """The keys of this process, read once."""
    return load_keyring(settings())
