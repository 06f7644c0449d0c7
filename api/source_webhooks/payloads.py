"""The payloads of pushes, in the forms of the services that send them. Only the fields that are used are read.

A payload says what its sender knows of its own repository. Nothing is fetched from a URL in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from api.request_parsing import parse_model
from shared.algorithms import FULL_HASH
from shared.errors import InvalidInputError

BRANCH_PREFIX = "refs/heads/"
MAX_CHANGES = 2_000
"""References that one push changes: as many as a push to a hosted repository may."""


@dataclass(frozen=True)
class Push:
    """What was pushed to a repository."""

    heads: dict[str, str]
    """The new commit of each pushed branch, without deleted ones."""
    default_branch: str | None
    """The repository's default branch, if the payload names it."""
    repository_urls: tuple[str, ...]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Repository(_Payload):
    default_branch: str | None = None
    clone_url: str | None = None
    ssh_url: str | None = None
    html_url: str | None = None


class _GitHubPush(_Payload):
    ref: str
    after: str
    deleted: bool = False
    repository: _Repository | None = None


class _Project(_Payload):
    default_branch: str | None = None
    git_http_url: str | None = None
    git_ssh_url: str | None = None
    web_url: str | None = None


class _GitLabPush(_Payload):
    ref: str
    after: str
    project: _Project | None = None


class _Link(_Payload):
    href: str


class _CloudTarget(_Payload):
    hash: str


class _CloudReference(_Payload):
    type: str
    name: str
    target: _CloudTarget | None = None


class _CloudChange(_Payload):
    new: _CloudReference | None = None


class _CloudChanges(_Payload):
    changes: list[_CloudChange] = Field(max_length=MAX_CHANGES)


class _CloudLinks(_Payload):
    html: _Link | None = None


class _CloudRepository(_Payload):
    links: _CloudLinks | None = None


class _BitbucketCloudPush(_Payload):
    push: _CloudChanges
    repository: _CloudRepository | None = None


class _ServerReference(_Payload):
    id: str


class _ServerChange(_Payload):
    ref: _ServerReference
    new_hash: str = Field(alias="toHash")
    type: str = "UPDATE"


class _ServerLinks(_Payload):
    clone: list[_Link] = Field([], max_length=MAX_CHANGES)


class _ServerRepository(_Payload):
    links: _ServerLinks | None = None


class _BitbucketServerPush(_Payload):
    changes: list[_ServerChange] = Field(max_length=MAX_CHANGES)
    repository: _ServerRepository | None = None


def read_github(payload: object) -> Push:
    """Read a `push` of GitHub or Gitea.

    Raises:
        InvalidInputError: it is none; so do the other functions of this module.
    """
    push = parse_model(_GitHubPush, payload)
    repository = push.repository or _Repository()
    urls = _given(repository.clone_url, repository.ssh_url, repository.html_url)
    return Push(_heads([(push.ref, None if push.deleted else push.after)]), repository.default_branch, urls)


def read_gitlab(payload: object) -> Push:
    """Read a `Push Hook` of GitLab."""
    push = parse_model(_GitLabPush, payload)
    project = push.project or _Project()
    urls = _given(project.git_http_url, project.git_ssh_url, project.web_url)
    return Push(_heads([(push.ref, push.after)]), project.default_branch, urls)


def read_bitbucket_cloud(payload: object) -> Push:
    """Read a `repo:push` of Bitbucket Cloud."""
    push = parse_model(_BitbucketCloudPush, payload)
    branches = [change.new for change in push.push.changes if change.new is not None and change.new.type == "branch"]
    links = push.repository.links if push.repository else None
    return Push(
        _heads((BRANCH_PREFIX + new.name, new.target.hash if new.target else None) for new in branches),
        None,
        _given(links.html.href if links and links.html else None),
    )


def read_bitbucket_server(payload: object) -> Push:
    """Read a `repo:refs_changed` of Bitbucket Data Center or Server."""
    push = parse_model(_BitbucketServerPush, payload)
    links = push.repository.links if push.repository else None
    return Push(
        _heads((change.ref.id, None if change.type == "DELETE" else change.new_hash) for change in push.changes),
        None,
        tuple(link.href for link in links.clone) if links else (),
    )


def is_of_other_repository(push: Push, repository_url: str) -> bool:
    """Return whether a push names a repository of the same server as the algorithm's, but another one.

    A webhook of a whole organization has one secret for all its repositories. Where the payload names other servers
    than the algorithm's URL does, such as behind a proxy, nothing can be said.
    """
    host, path = _place(repository_url)
    paths = [place[1] for place in map(_place, push.repository_urls) if place[0] == host]
    return bool(paths) and path not in paths


def _heads(changes: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    return {reference.removeprefix(BRANCH_PREFIX): commit for reference, commit in _pushed_branches(changes)}


def _pushed_branches(changes: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    for reference, commit in changes:
        if commit is None or not commit.strip("0") or not reference.startswith(BRANCH_PREFIX):
            continue  # a deleted branch, which some senders show as zeros, or a tag
        if not FULL_HASH.fullmatch(commit.lower()):
            raise InvalidInputError("The new commit of a branch must be a full hash.")
        yield reference, commit.lower()


def _given(*urls: str | None) -> tuple[str, ...]:
    return tuple(url for url in urls if url)


def _place(url: str) -> tuple[str, str]:
    """Return host and path of a repository's URL, in one notation for https, ssh and git's short form."""
    if "://" not in url:
        host, _, path = url.rpartition("@")[2].partition(":")
    else:
        try:
            parts = urlsplit(url)
        except ValueError:
            return "", ""
        host, path = parts.hostname or "", parts.path
    return host.lower(), path.lower().strip("/").removesuffix(".git")
