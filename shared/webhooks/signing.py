"""Secrets of webhooks and their signatures (Standard Webhooks 1.0: symmetric signatures).

The library of that standard needs an HTTP client of its own; the tests verify these signatures with it.
"""

import base64
import binascii
import hashlib
import hmac
import secrets

from shared.db.models import Webhook
from shared.encryption import Keyring
from shared.errors import InvalidValueError

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64


class InvalidSecretError(InvalidValueError):
    """Raised when a text is no secret for signatures; the text is a sentence for users."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """Return the key in a secret.

    Raises:
        InvalidSecretError: the secret is not `whsec_` and base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise InvalidSecretError(
            f"A webhook's secret is {PREFIX} and base64 of {MIN_BYTES} to {MAX_BYTES} random bytes."
        )
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature` for one attempt; `timestamp` is in seconds since 1970."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


def encrypt_secret(keyring: Keyring, webhook_id: str, secret: str) -> str:
    return keyring.encrypt({"secret": secret}, identity=secret_identity(webhook_id))


def decrypt_secret(keyring: Keyring, webhook: Webhook) -> str:
    """Decrypt the secret of a webhook.

    Raises:
        DecryptionError: the key that encrypted it is missing.
    """
    return keyring.decrypt(webhook.secret, identity=secret_identity(webhook.id))["secret"]


def secret_identity(webhook_id: str) -> str:
    return f"webhooks/{webhook_id}/secret"
