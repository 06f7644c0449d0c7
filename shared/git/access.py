"""How git reaches a repository: which transport it may use, and what it shows there, never in its arguments."""

import base64
import shlex
from dataclasses import dataclass, field
from typing import TypedDict

from shared.errors import ErrorClass, WorkError
from shared.git.repository_url import RepositoryUrl
from shared.settings import settings


@dataclass(frozen=True)
class GitCredentials:
    """A username and password for one repository over HTTP."""

    username: str
    password: str = field(repr=False)


class Access(TypedDict):
    """The arguments of `run_git` and `running_git` with which one repository can be reached and no other."""

    protocols: tuple[str, ...]
    config: list[tuple[str, str]]
    extra_environment: dict[str, str]


def access_to(url: RepositoryUrl, credentials: GitCredentials | None) -> Access:
    """What git needs to reach `url`: the one transport, the credentials for that URL only, the key for ssh.

    Raises:
        WorkError: an ssh:// URL, and no known_hosts file is set (invalid).
    """
    config, environment = [], {}
    if url.scheme == "ssh":
        environment = {"GIT_SSH_COMMAND": _ssh_command(), "GIT_SSH_VARIANT": "ssh"}
    elif credentials is not None:
        pair = f"{credentials.username}:{credentials.password}".encode()
        config = [(f"http.{url}.extraHeader", f"Authorization: Basic {base64.b64encode(pair).decode()}")]
    return Access(protocols=(url.scheme,), config=config, extra_environment=environment)


def _ssh_command() -> str:
    known_hosts, key = settings().source_ssh_known_hosts, settings().source_ssh_key
    if known_hosts is None:
        raise WorkError(
            ErrorClass.INVALID,
            "Repositories at ssh:// URLs are not set up here: LONGSHORE_SOURCE_SSH_KNOWN_HOSTS names no file.",
        )
    options = {
        "BatchMode": "yes",
        "ClearAllForwardings": "yes",
        "ConnectTimeout": "10",
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PermitLocalCommand": "no",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{known_hosts.absolute()}"',
    }
    words = ["ssh", "-F", "/dev/null"]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    if key is not None:
        words += ["-i", str(key.absolute())]
    return shlex.join(words)
