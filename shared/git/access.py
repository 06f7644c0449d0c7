"""How git reaches a repository: which transport it may use, and what it shows there, never in its arguments."""

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict
from urllib.request import getproxies, proxy_bypass

from shared.errors import ErrorClass, WorkError
from shared.git.repository_url import RepositoryUrl
from shared.net.address_rules import AllowedNetworks, ForbiddenAddressError, is_ip_address
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


def access_to(
    url: RepositoryUrl, credentials: GitCredentials | None, networks: AllowedNetworks | None = None
) -> Access:
    """What git needs to reach `url`: the one transport, the credentials for that URL only, the key for ssh.

    With `networks` (for a URL that a caller wrote) the host is resolved and checked here, and git goes to the very
    addresses that were found; unless a proxy stands in between, which resolves for itself.

    Raises:
        WorkError: an ssh:// URL, and no known_hosts file is set (invalid); an address that is not spoken to (invalid);
            a name that cannot be resolved (transient).
    """
    config, environment = [], {}
    addresses = [] if networks is None or _is_proxied(url) else _resolved(url, networks)
    if addresses and url.scheme != "ssh" and not is_ip_address(url.host):
        # curl's CURLOPT_RESOLVE, as git-config(1) hands it on.
        config.append(("http.curloptResolve", f"{url.host}:{_port(url)}:{','.join(addresses)}"))
    if url.scheme == "ssh":
        environment = {"GIT_SSH_COMMAND": _ssh_command(url.host, addresses), "GIT_SSH_VARIANT": "ssh"}
    elif credentials is not None:
        pair = f"{credentials.username}:{credentials.password}".encode()
        config.append((f"http.{url}.extraHeader", f"Authorization: Basic {base64.b64encode(pair).decode()}"))
    return Access(protocols=(url.scheme,), config=config, extra_environment=environment)


def _resolved(url: RepositoryUrl, networks: AllowedNetworks) -> list[str]:
    try:
        return networks.resolve(url.host, _port(url))
    except ForbiddenAddressError as refusal:
        raise WorkError(ErrorClass.INVALID, f"The repository {url}: {refusal}") from None
    except (OSError, UnicodeError):
        raise WorkError(
            ErrorClass.TRANSIENT, f"The repository {url} cannot be reached at the moment (its name cannot be resolved)."
        ) from None


def _port(url: RepositoryUrl) -> int:
    return url.port or {"https": 443, "http": 80, "ssh": 22}[url.scheme]


def _is_proxied(url: RepositoryUrl) -> bool:
    proxies = getproxies()
    proxied = url.scheme != "ssh" and bool(proxies.get(url.scheme) or proxies.get("all"))
    return proxied and not proxy_bypass(url.host)


def _ssh_command(host: str, addresses: Sequence[str]) -> str:
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
    if addresses:
        options |= {"HostName": addresses[0], "HostKeyAlias": host}
    words = ["ssh", "-F", "/dev/null"]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    if key is not None:
        words += ["-i", str(key.absolute())]
    return shlex.join(words)
