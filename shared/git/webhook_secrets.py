"""Secrets of the webhooks that repositories elsewhere send, stored encrypted. Each algorithm has its own."""

import secrets
from functools import lru_cache

import structlog

from shared.db.models import Algorithm
from shared.encryption import DecryptionError, Keyring

SECRET_BYTES = 32

log = structlog.get_logger(__name__)


def make_webhook_secret(keyring: Keyring, algorithm: Algorithm) -> str:
    """Give an algorithm a new secret, and return it. What was signed with its old one is refused from then on."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    algorithm.webhook_secret = keyring.encrypt({"secret": secret}, identity=webhook_identity(algorithm.id))
    return secret


def secret_to_verify(keyring: Keyring, algorithm: Algorithm | None) -> str:
    """Return the secret that a delivery must be signed with.

    Without an algorithm, or one that has none, it is a secret that nobody knows: the sender of an unsigned delivery
    must not learn, from the answer or from the time that it takes, which algorithms have webhooks.
    """
    sealed, identity = _decoy(keyring), webhook_identity("")
    if algorithm is not None and algorithm.webhook_secret is not None and not algorithm.hosted:
        sealed, identity = algorithm.webhook_secret, webhook_identity(algorithm.id)
    try:
        return keyring.decrypt(sealed, identity=identity)["secret"]
    except DecryptionError as error:
        log.error("webhook_secret_not_decrypted", identity=identity, reason=error.message)
        return keyring.decrypt(_decoy(keyring), identity=webhook_identity(""))["secret"]


def webhook_identity(algorithm_id: str) -> str:
    return f"algorithms/{algorithm_id}/webhook"


@lru_cache(maxsize=1)
def _decoy(keyring: Keyring) -> str:
    return keyring.encrypt({"secret": secrets.token_urlsafe(SECRET_BYTES)}, identity=webhook_identity(""))
