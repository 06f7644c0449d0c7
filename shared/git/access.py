"""Let git reach one repository: by one transport, at checked addresses, with credentials outside of its arguments."""

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict
from urllib.request import getproxies, proxy_bypass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from shared.errors import ErrorClass, WorkError
from shared.git.repository_url import RepositoryUrl
from shared.net.address_rules import (
    AllowedNetworks,
    ForbiddenAddressError,
    is_ip_address,
    is_public_address,
    source_trusted_networks,
)
from shared.settings import settings


@dataclass(frozen=True)
class GitCredentials:
    """A username and password for one repository over HTTP."""

    username: str
    password: str = field(repr=False)


class AccessOptions(TypedDict):
    """Arguments of `run_git` and `running_git` with which git can reach one repository and no other."""

    protocols: tuple[str, ...]
    config: list[tuple[str, str]]
    extra_environment: dict[str, str]


@dataclass(frozen=True)
class Access:
    """The options with which git reaches one repository, and whether callers may see the errors of its server."""

    options: AccessOptions
    errors_are_visible: bool
    """False for addresses outside of the public internet: callers choose address and port, and errors would tell them
    which services run there. LONGSHORE_SOURCE_TRUSTED_NETWORKS names exceptions."""


class HiddenServerError(WorkError):
    """Raised when the name of a repository's server cannot be resolved, or resolves to this machine.

    Callers may not see which: it may be a name of the private network.
    """


def make_access(
    url: RepositoryUrl,
    credentials: GitCredentials | None,
    networks: AllowedNetworks | None = None,
    *,
    owner: str | None = None,
) -> Access:
    """Return what git needs to reach `url`: the transport, the credentials for that URL only, the owner's key for ssh.

    With `networks` (for a URL from a caller) the host is resolved and checked here, and git connects to exactly these
    addresses, except through a proxy, which resolves the name itself.

    Raises:
        WorkError: an ssh:// URL without a known_hosts file, or one that the key is not for (invalid); a forbidden
            address (invalid).
        HiddenServerError: a name that cannot be resolved, or an address of this machine (transient).
    """
    config, environment = [], {}
    addresses = [] if networks is None else _resolve(url, networks)
    if addresses and url.scheme != "ssh" and not is_ip_address(url.host):
        # Passed on to curl as CURLOPT_RESOLVE (git-config(1)).
        config.append(("http.curloptResolve", f"{url.host}:{_port(url)}:{','.join(addresses)}"))
    if url.scheme == "ssh":
        environment = {"GIT_SSH_COMMAND": _ssh_command(url, addresses, owner), "GIT_SSH_VARIANT": "ssh"}
    elif credentials is not None:
        pair = f"{credentials.username}:{credentials.password}".encode()
        config.append((f"http.{url}.extraHeader", f"Authorization: Basic {base64.b64encode(pair).decode()}"))
    return Access(
        AccessOptions(protocols=(url.scheme,), config=config, extra_environment=environment),
        errors_are_visible=all(
            is_public_address(address) or source_trusted_networks().contains(address) for address in addresses
        ),
    )


def check_ssh_key_scope(url: RepositoryUrl, owner: str | None) -> None:
    """Check that the installation's ssh key, if there is one, may be used for a repository of this owner.

    Raises:
        WorkError: it may not (invalid).
    """
    if url.scheme != "ssh" or settings().source_ssh_key is None:
        return
    for scope in settings().source_ssh_key_scopes:
        allowed_owner, _, prefix = scope.partition("=")
        if allowed_owner in ("*", owner) and f"{url}/".startswith(f"{prefix.rstrip('/')}/"):
            return
    raise WorkError(
        ErrorClass.INVALID,
        f"The ssh key of this installation is not for {url} of {owner}; use https:// with source.credentials, or ask "
        "an operator to allow it (LONGSHORE_SOURCE_SSH_KEY_SCOPES).",
    )


def public_ssh_key(url: RepositoryUrl, owner: str) -> str | None:
    """Return the public part of the key with which a repository of this owner is read, to be allowed there; or None."""
    path = settings().source_ssh_key
    if url.scheme != "ssh" or path is None:
        return None
    try:
        check_ssh_key_scope(url, owner)
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (WorkError, OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None  # not for this owner, unreadable here, or in a format that only ssh reads
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _resolve(url: RepositoryUrl, networks: AllowedNetworks) -> list[str]:
    try:
        if _is_proxied(url):
            networks.check_unresolved(url.host)
            return []
        addresses = networks.resolve(url.host, _port(url))
    except ForbiddenAddressError as error:
        raise WorkError(ErrorClass.INVALID, f"The repository {url}: {error.for_caller}") from None
    except (OSError, UnicodeError):
        raise HiddenServerError(ErrorClass.TRANSIENT, f"The name of the repository {url} cannot be resolved.") from None
    for address in addresses:
        if not networks.allows_this_machine(address):
            raise HiddenServerError(
                ErrorClass.TRANSIENT,
                f"{address} is an address of this machine, which {networks.setting} allows only with 127.0.0.0/8 or by "
                "its own network.",
            )
    return addresses


def _port(url: RepositoryUrl) -> int:
    return url.port or {"https": 443, "http": 80, "ssh": 22}[url.scheme]


def _is_proxied(url: RepositoryUrl) -> bool:
    proxies = getproxies()
    return url.scheme != "ssh" and bool(proxies.get(url.scheme) or proxies.get("all")) and not proxy_bypass(url.host)


def _ssh_command(url: RepositoryUrl, addresses: Sequence[str], owner: str | None) -> str:
    known_hosts, key = settings().source_ssh_known_hosts, settings().source_ssh_key
    if known_hosts is None:
        raise WorkError(
            ErrorClass.INVALID,
            "Repositories at ssh:// URLs cannot be used here: LONGSHORE_SOURCE_SSH_KNOWN_HOSTS is not set.",
        )
    check_ssh_key_scope(url, owner)
    options = {
        "BatchMode": "yes",
        "ClearAllForwardings": "yes",
        "ConnectTimeout": "10",
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        # Without it, ssh tries the keys in the home directory of the account that Longshore runs under.
        "IdentityFile": "none" if key is None else f'"{key.absolute()}"',
        "PermitLocalCommand": "no",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{known_hosts.absolute()}"',
    }
    if addresses:
        options |= {"HostName": addresses[0], "HostKeyAlias": url.host}
    return shlex.join(
        ["ssh", "-F", "/dev/null", *(word for option in options.items() for word in ("-o", "=".join(option)))]
    )
