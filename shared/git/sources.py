"""Repositories elsewhere: which addresses are taken here, and their credentials, sealed in the algorithm's row.

Which commit a call means: resolved to its full hash when the call is made.

Asking a repository elsewhere for its newest commit, without fetching anything.
"""

import time

from shared.algorithms import FULL_HASH
from shared.db.models import Algorithm
from shared.encryption import DecryptionError, Keyring, keyring
from shared.errors import ConflictError, ErrorClass, InvalidInputError, WorkError
from shared.git import hosted
from shared.git.access import Access, GitCredentials, access_to
from shared.git.command import GitResult, run_git
from shared.git.errors import git_error
from shared.git.repository_url import InvalidRepositoryUrlError, RepositoryUrl
from shared.net.address_rules import source_networks
from shared.settings import settings
from shared.subprocesses import SubprocessTimeoutError


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
    source_networks().check_new_host(url.host, url.port or 443)


def seal_source(keyring: Keyring, algorithm: Algorithm, username: str, password: str) -> str:
    """Seal a repository's credentials for the algorithm's row."""
    return keyring.encrypt({"username": username, "password": password}, identity=_identity(algorithm.id))


def open_source(keyring: Keyring, algorithm: Algorithm) -> tuple[str, str] | None:
    """Username and password of the algorithm's repository, if it has any.

    Raises:
        DecryptionError: the key that sealed them is gone.
    """
    if algorithm.source_credentials is None:
        return None
    opened = keyring.decrypt(algorithm.source_credentials, identity=_identity(algorithm.id))
    return opened["username"], opened["password"]


def _identity(algorithm_id: str) -> str:
    return f"algorithms/{algorithm_id}/source"


SECONDS = 8
"""How long a repository elsewhere may take to answer."""


def resolve_commit(algorithm: Algorithm, commit: str | None) -> str:
    """The full hash of a commit: as given, of a prefix, or the newest of the default branch.

    Raises:
        InvalidInputError: no such commit.
        ConflictError: a repository elsewhere does not respond.
        UnavailableError: the git service does not respond.
    """
    if algorithm.repository_url is None:
        return hosted.resolve(algorithm.id, commit)
    if commit is not None:
        if not FULL_HASH.fullmatch(commit):
            raise InvalidInputError(
                "commitSha must be a full hash: the repository is elsewhere, and cannot be asked for a part of one."
            )
        return commit
    try:
        # Read again: the settings may be stricter than when the address was taken.
        url = read_repository_url(algorithm.repository_url)
    except InvalidRepositoryUrlError as error:
        raise InvalidInputError(f"The algorithm's repository: {error}") from None
    try:
        opened = open_source(keyring(), algorithm)
    except DecryptionError as error:
        raise InvalidInputError(f"The repository's credentials cannot be used: {error}. Give them again.") from None
    try:
        return newest_commit(url, GitCredentials(*opened) if opened else None, timeout=SECONDS)
    except WorkError as error:
        if error.error_class in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED, ErrorClass.UNAVAILABLE):
            # It is not ours that is away, but what the caller named: no failure of this service.
            raise ConflictError(error.message, retry_after=int(error.retry_after or 10)) from None
        raise InvalidInputError(error.message) from None


def newest_commit(url: RepositoryUrl, credentials: GitCredentials | None = None, *, timeout: float = 10) -> str:
    """The full hash of the newest commit of the default branch. `timeout` is in seconds, for everything.

    Raises:
        WorkError: empty repository (invalid), default branch deleted (invalid), no such repository (not_found),
            credentials refused (auth), certificate not trusted or no git server (invalid), unreachable or no
            answer in time (transient). The message is a sentence for the caller.
    """
    deadline = time.monotonic() + timeout
    access = access_to(url, credentials, source_networks())
    head = _names(_ls_remote(url, access, "HEAD", deadline)).get("HEAD")
    if head is not None:
        return head
    if _names(_ls_remote(url, access, "refs/heads/*", deadline)):
        raise WorkError(
            ErrorClass.INVALID,
            f"The default branch of {url} was deleted: name a commit, or choose another default there.",
        )
    raise WorkError(ErrorClass.INVALID, f"The repository {url} is empty: push a commit first.")


def _ls_remote(url: RepositoryUrl, access: Access, pattern: str, deadline: float) -> GitResult:
    try:
        answer = run_git(
            ["ls-remote", "--quiet", "--", str(url), pattern], timeout=deadline - time.monotonic(), **access
        )
    except SubprocessTimeoutError:
        raise WorkError(ErrorClass.TRANSIENT, f"The repository {url} did not answer in time.") from None
    if not answer.ok and not answer.is_cut:
        raise git_error(answer.errors, url)
    return answer


def _names(answer: GitResult) -> dict[str, str]:
    pairs = (line.partition("\t") for line in answer.text.splitlines())
    return {name: git_hash for git_hash, _, name in pairs if FULL_HASH.fullmatch(git_hash)}
