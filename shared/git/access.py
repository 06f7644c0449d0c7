"""Let git reach one repository: by one transport, at checked addresses, with credentials outside of its arguments."""

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
    """Arguments of `run_git` and `running_git` with which git can reach one repository and no other."""

    protocols: tuple[str, ...]
    config: list[tuple[str, str]]
    extra_environment: dict[str, str]


def make_access(
    url: RepositoryUrl, credentials: GitCredentials | None, networks: AllowedNetworks | None = None
) -> Access:
    """Return what git needs to reach `url`: the transport, the credentials for that URL only, the key for ssh.

    With `networks` (for a URL from a caller) the host is resolved and checked here, and git connects to exactly these
    addresses, except through a proxy, which resolves the name itself.

    Raises:
        WorkError: an ssh:// URL without a known_hosts file (invalid); a forbidden address (invalid); a name that cannot
            be resolved (transient).
    """
    config, environment = [], {}
    addresses = [] if networks is None or _is_proxied(url) else _resolve(url, networks)
    if addresses and url.scheme != "ssh" and not is_ip_address(url.host):
        # Passed on to curl as CURLOPT_RESOLVE (git-config(1)).
        config.append(("http.curloptResolve", f"{url.host}:{_port(url)}:{','.join(addresses)}"))
    if url.scheme == "ssh":
        environment = {"GIT_SSH_COMMAND": _ssh_command(url.host, addresses), "GIT_SSH_VARIANT": "ssh"}
    elif credentials is not None:
        pair = f"{credentials.username}:{credentials.password}".encode()
        config.append((f"http.{url}.extraHeader", f"Authorization: Basic {base64.b64encode(pair).decode()}"))
    return Access(protocols=(url.scheme,), config=config, extra_environment=environment)


def _resolve(url: RepositoryUrl, networks: AllowedNetworks) -> list[str]:
    try:
        return networks.resolve(url.host, _port(url))
    except ForbiddenAddressError as error:
        raise WorkError(ErrorClass.INVALID, f"The repository {url}: {error}") from None
    except (OSError, UnicodeError):
        raise WorkError(
            ErrorClass.TRANSIENT, f"The repository {url} cannot be reached at the moment (its name cannot be resolved)."
        ) from None


def _port(url: RepositoryUrl) -> int:
    return url.port or {"https": 443, "http": 80, "ssh": 22}[url.scheme]


def _is_proxied(url: RepositoryUrl) -> bool:
    proxies = getproxies()
    return url.scheme != "ssh" and bool(proxies.get(url.scheme) or proxies.get("all")) and not proxy_bypass(url.host)


def _ssh_command(host: str, addresses: Sequence[str]) -> str:
    known_hosts, key = settings().source_ssh_known_hosts, settings().source_ssh_key
    if known_hosts is None:
        raise WorkError(
            ErrorClass.INVALID,
            "Repositories at ssh:// URLs cannot be used here: LONGSHORE_SOURCE_SSH_KNOWN_HOSTS is not set.",
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
    words = ["ssh", "-F", "/dev/null", *(word for option in options.items() for word in ("-o", "=".join(option)))]
    if key is not None:
        words += ["-i", str(key.absolute())]
    return shlex.join(words)
