"""Repositories elsewhere: which addresses are taken here, and their credentials, sealed in the algorithm's row."""

from shared.git.repository_url import RepositoryUrl
from shared.models import Algorithm
from shared.networks import source_networks
from shared.sealing import Keyring
from shared.settings import settings


def read_repository_url(text: str) -> RepositoryUrl:
    """A repository's address, if the settings of this installation admit it.

    Raises:
        InvalidRepositoryUrlError: it cannot be one, or is not admitted here; with a sentence.
    """
    return RepositoryUrl.parse(
        text,
        allow_http=settings().source_allow_http,
        allow_ssh=settings().source_ssh_known_hosts is not None,
    )


def refuse_forbidden_repository(url: RepositoryUrl) -> None:
    """Refuse a repository at an address that is not spoken to; not within a transaction, since it resolves the name.

    Raises:
        ForbiddenAddressError: with a sentence.
    """
    source_networks().check_recorded(url.host, url.port or 443)


def seal_source(keyring: Keyring, algorithm: Algorithm, username: str, password: str) -> str:
    """Seal a repository's credentials for the algorithm's row."""
    return keyring.seal({"username": username, "password": password}, identity=_identity(algorithm.id))


def open_source(keyring: Keyring, algorithm: Algorithm) -> tuple[str, str] | None:
    """Username and password of the algorithm's repository, if it has any.

    Raises:
        DecryptionError: the key that sealed them is gone.
    """
    if algorithm.source_credentials is None:
        return None
    opened = keyring.open(algorithm.source_credentials, identity=_identity(algorithm.id))
    return opened["username"], opened["password"]


def _identity(algorithm_id: str) -> str:
    return f"algorithms/{algorithm_id}/source"
