"""Asking a repository elsewhere for its newest commit, without fetching anything."""

import time

from shared.errors import ErrorClass, WorkError
from shared.git.access import Access, GitCredentials, access_to
from shared.git.command import FULL_HASH, GitAnswer, GitTimeoutError, run_git
from shared.git.failures import git_error
from shared.git.repository_url import RepositoryUrl
from shared.networks import source_networks


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


def _ls_remote(url: RepositoryUrl, access: Access, pattern: str, deadline: float) -> GitAnswer:
    try:
        answer = run_git(
            ["ls-remote", "--quiet", "--", str(url), pattern], timeout=deadline - time.monotonic(), **access
        )
    except GitTimeoutError:
        raise WorkError(ErrorClass.TRANSIENT, f"The repository {url} did not answer in time.") from None
    if not answer.ok and not answer.cut:
        raise git_error(answer.errors, url)
    return answer


def _names(answer: GitAnswer) -> dict[str, str]:
    pairs = (line.partition("\t") for line in answer.text.splitlines())
    return {name: git_hash for git_hash, _, name in pairs if FULL_HASH.fullmatch(git_hash)}
