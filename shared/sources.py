"""Credentials of private repositories elsewhere: sealed in the algorithm's row, opened where git is run."""

from shared.models import Algorithm
from shared.sealing import Keyring


def seal_source(keyring: Keyring, algorithm: Algorithm, username: str, password: str) -> str:
    """Seal a repository's credentials for the algorithm's row."""
    return keyring.seal({"username": username, "password": password}, identity=_identity(algorithm.id))


def open_source(keyring: Keyring, algorithm: Algorithm) -> tuple[str, str] | None:
    """Username and password of the algorithm's repository, if it has any.

    Raises:
        SealError: the key that sealed them is gone.
    """
    if algorithm.source_credentials is None:
        return None
    opened = keyring.open(algorithm.source_credentials, identity=_identity(algorithm.id))
    return opened["username"], opened["password"]


def _identity(algorithm_id: str) -> str:
    return f"algorithms/{algorithm_id}/source"
