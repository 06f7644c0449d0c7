"""The source of an algorithm: its URL and encrypted credentials, and the full hash of the commit that a request names.

A repository is hosted here, or elsewhere at a URL. Nothing is fetched from one elsewhere to find its newest commit.
"""

import re
import time
from dataclasses import dataclass

import structlog

from shared.algorithms import FULL_HASH
from shared.cancellation import CancelToken
from shared.db.models import Algorithm
from shared.encryption import DecryptionError, Keyring, keyring
from shared.errors import ConflictError, ErrorClass, InvalidInputError, WorkError
from shared.git import hosted
from shared.git.access import Access, GitCredentials, HiddenServerError, check_ssh_key_scope, make_access
from shared.git.command import GitResult, run_git
from shared.git.errors import git_error
from shared.git.repository_url import InvalidRepositoryUrlError, RepositoryUrl
from shared.net.address_rules import ForbiddenAddressError, source_networks
from shared.settings import settings
from shared.subprocesses import SubprocessTimeoutError

RESOLVE_TIMEOUT_SECONDS = 8
"""For a repository elsewhere to name its newest commit."""
HIDDEN_ERROR_SECONDS = 4
"""How long it takes to report an error that callers may not see (`Access`). The time is the same for all errors."""
RETRY_SECONDS = 10
SYMBOLIC_HEAD = re.compile(r"^ref: refs/heads/(\S+)\tHEAD$", re.MULTILINE)
"""The default branch, as `git ls-remote --symref` prints it."""

log = structlog.get_logger(__name__)


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


def check_new_repository(url: RepositoryUrl, owner: str, *, resolves: bool) -> None:
    """Check that an owner may record a repository. With `resolves`, it resolves the name: not in a transaction.

    It is checked again at each use.

    Raises:
        InvalidInputError: the address rules forbid it, or the ssh key is not for it.
    """
    try:
        source_networks().check_unresolved(url.host)
        if resolves:
            source_networks().check_new_host(url.host, url.port or 443)
        check_ssh_key_scope(url, owner)
    except ForbiddenAddressError as error:
        raise InvalidInputError(error.for_caller) from None
    except WorkError as error:
        raise InvalidInputError(error.message) from None


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
        url, credentials = repository_of(algorithm)
        return newest_commit(url, credentials, owner=algorithm.owner, timeout=RESOLVE_TIMEOUT_SECONDS)
    except WorkError as error:
        if error.error_class in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED, ErrorClass.UNAVAILABLE):
            # A conflict, because the caller's server does not respond, not a part of the installation.
            raise ConflictError(error.message, retry_after=int(error.retry_after or RETRY_SECONDS)) from None
        raise InvalidInputError(error.message) from None


def repository_of(algorithm: Algorithm) -> tuple[RepositoryUrl, GitCredentials | None]:
    """Return the URL and the credentials of an algorithm's repository elsewhere.

    Raises:
        WorkError: the settings do not allow the URL any more (invalid), or the credentials cannot be decrypted (auth).
    """
    try:
        # Parsed again: the settings may be stricter than when the URL was recorded.
        url = parse_repository_url(algorithm.repository_url or "")
        pair = decrypt_source_credentials(keyring(), algorithm)
    except InvalidRepositoryUrlError as error:
        raise WorkError(ErrorClass.INVALID, f"The algorithm's repository: {error}") from None
    except DecryptionError as error:
        raise WorkError(
            ErrorClass.AUTH, f"The repository's credentials cannot be used: {error}. Give them again."
        ) from None
    return url, GitCredentials(*pair) if pair else None


def list_repository(algorithm: Algorithm, *, timeout: float = RESOLVE_TIMEOUT_SECONDS) -> "RepositoryListing":
    """Ask an algorithm's repository elsewhere for its newest commit and its default branch.

    Raises:
        WorkError: as `repository_of`, and as `newest_commit` of a repository that cannot be read.
    """
    url, credentials = repository_of(algorithm)
    return _reach(url, credentials, algorithm.owner, time.monotonic() + timeout, CancelToken())


def newest_commit(
    url: RepositoryUrl, credentials: GitCredentials | None = None, *, owner: str | None = None, timeout: float = 10
) -> str:
    """Return the full hash of the newest commit of the default branch. `timeout` is in seconds, in total.

    Raises:
        WorkError: empty repository (invalid), default branch deleted (invalid), no such repository (not_found),
            wrong credentials (auth), certificate not trusted or no git server (invalid), unreachable or too slow
            (transient); always transient if callers may not see the error. The message is for the caller.
    """
    listing = _reach(url, credentials, owner, time.monotonic() + timeout, CancelToken())
    if listing.head is not None:
        return listing.head
    if listing.has_branches:
        raise WorkError(
            ErrorClass.INVALID,
            f"The default branch of {url} was deleted: name a commit, or choose another default there.",
        )
    raise WorkError(ErrorClass.INVALID, f"The repository {url} is empty: push a commit first.")


def reach_repository(
    url: RepositoryUrl, credentials: GitCredentials | None, *, owner: str, timeout: float, stop: CancelToken
) -> Access:
    """Return the access with which git fetches from a repository elsewhere.

    If callers may not see its errors, its branches are listed first: the time that a fetch takes to fail would tell
    the errors apart.

    Raises:
        WorkError: as `make_access`; the repository cannot be read, and callers may not see why (transient).
        WorkCancelledError: `stop` was cancelled.
    """
    return _reach(url, credentials, owner, time.monotonic() + timeout, stop, asks_always=False).access


@dataclass(frozen=True)
class RepositoryListing:
    """The access to a repository, and its branches if they were listed."""

    access: Access
    head: str | None = None
    """The newest commit of the default branch."""
    default_branch: str | None = None
    has_branches: bool = False


def _reach(
    url: RepositoryUrl,
    credentials: GitCredentials | None,
    owner: str | None,
    deadline: float,
    stop: CancelToken,
    *,
    asks_always: bool = True,
) -> RepositoryListing:
    hidden_until = min(deadline, time.monotonic() + HIDDEN_ERROR_SECONDS)
    try:
        access = make_access(url, credentials, source_networks(), owner=owner)
    except HiddenServerError as error:
        raise _hidden_error(url, error, hidden_until, stop) from None
    if access.errors_are_visible:
        return _ask(url, access, deadline, stop) if asks_always else RepositoryListing(access)
    try:
        listing = _ask(url, access, hidden_until, stop)
        if not listing.has_branches:  # any web server can send such a response
            raise WorkError(ErrorClass.INVALID, f"The repository {url} is empty.")
    except WorkError as error:
        if error.error_class == ErrorClass.UNAVAILABLE:
            raise
        raise _hidden_error(url, error, hidden_until, stop) from None
    return listing


def _ask(url: RepositoryUrl, access: Access, deadline: float, stop: CancelToken) -> RepositoryListing:
    listed = _ls_remote(url, access, "HEAD", deadline, stop)
    head = _hashes_by_name(listed).get("HEAD")
    if head is not None:
        branch = SYMBOLIC_HEAD.search(listed.text)
        return RepositoryListing(access, head, branch[1] if branch else None, has_branches=True)
    branches = _hashes_by_name(_ls_remote(url, access, "refs/heads/*", deadline, stop))
    return RepositoryListing(access, has_branches=bool(branches))


def _hidden_error(url: RepositoryUrl, error: WorkError, until: float, stop: CancelToken) -> WorkError:
    """Log an error that callers may not see; after a fixed time return the same error as for all others."""
    log.warning("repository_unreadable", url=str(url), error_class=error.error_class, reason=error.message)
    stop.sleep(max(0.0, until - time.monotonic()))
    return WorkError(
        ErrorClass.TRANSIENT,
        f"The repository {url} cannot be read at the moment: nothing answers there, it is no git repository, or it "
        "refuses the credentials. Callers are not told more about addresses outside of the public internet; the "
        "operator finds the reason in the log, and can allow more (LONGSHORE_SOURCE_TRUSTED_NETWORKS).",
    )


def _ls_remote(url: RepositoryUrl, access: Access, pattern: str, deadline: float, stop: CancelToken) -> GitResult:
    try:
        result = run_git(
            ["ls-remote", "--quiet", "--symref", "--", str(url), pattern],
            timeout=deadline - time.monotonic(),
            stop=stop,
            **access.options,
        )
    except SubprocessTimeoutError:
        raise WorkError(ErrorClass.TRANSIENT, f"The repository {url} did not answer in time.") from None
    if not result.ok and not result.is_cut:
        raise git_error(result.errors, url)
    return result


def _hashes_by_name(result: GitResult) -> dict[str, str]:
    pairs = (line.partition("\t") for line in result.text.splitlines())
    return {name: git_hash for git_hash, _, name in pairs if FULL_HASH.fullmatch(git_hash)}
