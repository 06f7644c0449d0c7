"""Which commit a call means: resolved to its full hash when the call is made."""

from shared.algorithms import FULL_HASH
from shared.errors import ErrorClass, WorkError
from shared.git import hosted
from shared.git.access import GitCredentials
from shared.git.remote import newest_commit
from shared.git.repository_url import InvalidRepositoryUrlError
from shared.models import Algorithm
from shared.refusals import bad_request, conflict
from shared.sealing import DecryptionError, keyring
from shared.sources import open_source, read_repository_url

SECONDS = 8
"""How long a repository elsewhere may take to answer."""


def resolve_commit(algorithm: Algorithm, commit: str | None) -> str:
    """The full hash of a commit: as given, of a prefix, or the newest of the default branch.

    Raises:
        Refusal: 400 when there is no such commit, 409 when a repository elsewhere does not answer, 503 when the git
            service does not.
    """
    if algorithm.repository_url is None:
        return hosted.resolve(algorithm.id, commit)
    if commit is not None:
        if not FULL_HASH.fullmatch(commit):
            raise bad_request(
                "commitSha must be a full hash: the repository is elsewhere, and cannot be asked for a part of one."
            )
        return commit
    try:
        # Read again: the settings may be stricter than when the address was taken.
        url = read_repository_url(algorithm.repository_url)
    except InvalidRepositoryUrlError as error:
        raise bad_request(f"The algorithm's repository: {error}") from None
    try:
        opened = open_source(keyring(), algorithm)
    except DecryptionError as error:
        raise bad_request(f"The repository's credentials cannot be used: {error}. Give them again.") from None
    try:
        return newest_commit(url, GitCredentials(*opened) if opened else None, timeout=SECONDS)
    except WorkError as error:
        if error.error_class in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED, ErrorClass.UNAVAILABLE):
            # It is not ours that is away, but what the caller named: no failure of this service.
            raise conflict(error.message, retry_after=int(error.retry_after or 10)) from None
        raise bad_request(error.message) from None
