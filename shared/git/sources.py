"""The source of an algorithm: its URL and encrypted credentials, and the full hash of the commit that a request names.

A repository is hosted here, or elsewhere at a URL. Nothing is fetched from one elsewhere to find its newest commit.
"""

import time

from shared.algorithms import FULL_HASH
from shared.db.models import Algorithm
from shared.encryption import DecryptionError, Keyring, keyring
from shared.errors import ConflictError, ErrorClass, InvalidInputError, WorkError
from shared.git import hosted
from shared.git.access import Access, GitCredentials, make_access
from shared.git.command import GitResult, run_git
from shared.git.errors import git_error
from shared.git.repository_url import InvalidRepositoryUrlError, RepositoryUrl
from shared.net.address_rules import source_networks
from shared.settings import settings
from shared.subprocesses import SubprocessTimeoutError

RESOLVE_TIMEOUT_SECONDS = 8
"""For a repository elsewhere to name its newest commit."""
RETRY_SECONDS = 10


def parse_repository_url(text: str) -> RepositoryUrl:
    """Parse the URL of a repository.

    Raises:
        InvalidRepositoryUrlError: it is no such URL, or the settings do not allow it.
    """
    return RepositoryUrl.parse(
        text,
        allow_http=settings().source_allow_http,
        allow_ssh=settings().source_ssh_known_hosts is not None,
    )


def check_repository_address(url: RepositoryUrl) -> None:
    """Check the address of a repository. It resolves the host name, so it must not be called in a transaction.

    Raises:
        ForbiddenAddressError: the address rules forbid it.
    """
    source_networks().check_new_host(url.host, url.port or 443)


def encrypt_source_credentials(keyring: Keyring, algorithm: Algorithm, username: str, password: str) -> str:
    return keyring.encrypt({"username": username, "password": password}, identity=source_identity(algorithm.id))


def decrypt_source_credentials(keyring: Keyring, algorithm: Algorithm) -> tuple[str, str] | None:
    """Return username and password of the algorithm's repository, if it has any.

    Raises:
        DecryptionError: the key that encrypted them is missing.
    """
    if algorithm.source_credentials is None:
        return None
    credentials = keyring.decrypt(algorithm.source_credentials, identity=source_identity(algorithm.id))
    return credentials["username"], credentials["password"]


def source_identity(algorithm_id: str) -> str:
    return f"algorithms/{algorithm_id}/source"


def resolve_commit(algorithm: Algorithm, commit: str | None) -> str:
    """Return the full hash of a commit that is given by hash or, if hosted, by prefix; None: the newest one.

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
                "commitSha must be a full hash: the repository is not hosted here, so a prefix cannot be looked up."
            )
        return commit
    try:
        # Parsed again: the settings may be stricter than when the URL was recorded.
        url = parse_repository_url(algorithm.repository_url)
        pair = decrypt_source_credentials(keyring(), algorithm)
        return newest_commit(url, GitCredentials(*pair) if pair else None, timeout=RESOLVE_TIMEOUT_SECONDS)
    except InvalidRepositoryUrlError as error:
        raise InvalidInputError(f"The algorithm's repository: {error}") from None
    except DecryptionError as error:
        raise InvalidInputError(f"The repository's credentials cannot be used: {error}. Give them again.") from None
    except WorkError as error:
        if error.error_class in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED, ErrorClass.UNAVAILABLE):
            # A conflict, because the caller's server does not respond, not a part of the installation.
            raise ConflictError(error.message, retry_after=int(error.retry_after or RETRY_SECONDS)) from None
        raise InvalidInputError(error.message) from None


def newest_commit(url: RepositoryUrl, credentials: GitCredentials | None = None, *, timeout: float = 10) -> str:
    """Return the full hash of the newest commit of the default branch. `timeout` is in seconds, in total.

    Raises:
        WorkError: empty repository (invalid), default branch deleted (invalid), no such repository (not_found),
            wrong credentials (auth), certificate not trusted or no git server (invalid), unreachable or too slow
            (transient). The message is for the caller.
    """
    deadline = time.monotonic() + timeout
    access = make_access(url, credentials, source_networks())
    head = _hashes_by_name(_ls_remote(url, access, "HEAD", deadline)).get("HEAD")
    if head is not None:
        return head
    if _hashes_by_name(_ls_remote(url, access, "refs/heads/*", deadline)):
        raise WorkError(
            ErrorClass.INVALID,
            f"The default branch of {url} was deleted: name a commit, or choose another default there.",
        )
    raise WorkError(ErrorClass.INVALID, f"The repository {url} is empty: push a commit first.")


def _ls_remote(url: RepositoryUrl, access: Access, pattern: str, deadline: float) -> GitResult:
    try:
        result = run_git(
            ["ls-remote", "--quiet", "--", str(url), pattern], timeout=deadline - time.monotonic(), **access
        )
    except SubprocessTimeoutError:
        raise WorkError(ErrorClass.TRANSIENT, f"The repository {url} did not answer in time.") from None
    if not result.ok and not result.is_cut:
        raise git_error(result.errors, url)
    return result


def _hashes_by_name(result: GitResult) -> dict[str, str]:
    pairs = (line.partition("\t") for line in result.text.splitlines())
    return {name: git_hash for git_hash, _, name in pairs if FULL_HASH.fullmatch(git_hash)}
