"""A real registry (distribution's) on a loopback port: with a password file, with tokens, with TLS."""

import json
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from dev.services.certificates import ServerCertificate, pem, write_server_certificate
from dev.services.processes import free_port, required_program, running
from dev.services.token_server import ISSUER, SERVICE, Accounts, token_server

PUSHER = MappingProxyType({"pusher": "secret"})


@dataclass(frozen=True)
class PrivateRegistry:
    """Where a registry answers and who may use it."""

    host: str
    """Address and port, as an image's name begins."""
    url: str
    users: dict[str, str]
    """Names and passwords."""
    authority_pem: str | None = None
    """The certificate authority to trust, where it speaks TLS."""


@contextmanager
def private_registry(
    directory: Path, *, users: Mapping[str, str] = PUSHER, tls: bool = False, port: int | None = None
) -> Iterator[PrivateRegistry]:
    """A registry with a password file, its storage below `directory`, deletion enabled.

    Docker engines trust any certificate on 127.0.0.0/8; clients over HTTPS have to be given `authority_pem`.

    Args:
        users: names and passwords.
        tls: speak HTTPS with a certificate of an authority made for it.
        port: on 127.0.0.1; a free one by default. Give the same directory and port to bring a stopped one back.

    Raises:
        PartFailedError: docker-registry or htpasswd is not installed, or it does not come up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    passwords = _write_passwords(directory / "htpasswd", users)
    certificate = write_server_certificate(directory / "tls") if tls else None
    auth = {"htpasswd": {"realm": "Longshore parts", "path": str(passwords)}}
    with _registry(directory, auth, certificate, port or free_port()) as url:
        yield PrivateRegistry(
            host=url.partition("://")[2],
            url=url,
            users=dict(users),
            authority_pem=certificate.authority_pem if certificate else None,
        )


@contextmanager
def token_registry(
    directory: Path,
    accounts: Accounts = MappingProxyType(
        {"writer": ("writer-secret", {"pull", "push", "delete"}), "reader": ("reader-secret", {"pull"})}
    ),
    *,
    port: int | None = None,
) -> Iterator[PrivateRegistry]:
    """A registry that sends its clients to a token server of ours, where accounts may do different things.

    Raises:
        PartFailedError: docker-registry is not installed, or it does not come up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with token_server(accounts) as tokens:
        bundle = directory / "tokens.pem"
        bundle.write_text(pem(tokens.certificate))
        auth = {
            "token": {"realm": tokens.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)},
        }
        with _registry(directory, auth, None, port or free_port()) as url:
            users = {name: password for name, (password, _) in accounts.items()}
            yield PrivateRegistry(host=url.partition("://")[2], url=url, users=users)


@contextmanager
def _registry(directory: Path, auth: dict[str, Any], certificate: ServerCertificate | None, port: int) -> Iterator[str]:
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    if certificate is not None:
        http["tls"] = {"certificate": str(certificate.certificate), "key": str(certificate.key)}
    configuration = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "delete": {"enabled": True},
        },
        "http": http,
        "auth": auth,
    }
    path = directory / "config.yml"
    path.write_text(json.dumps(configuration, indent=2))  # JSON is YAML
    url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    trusted = certificate.authority_pem if certificate else None
    with running(
        "docker-registry",
        [required_program("docker-registry"), "serve", str(path)],
        log=directory / "registry.log",
        ready=lambda: _asks_for_credentials(url, trusted),
        grace=5,
    ):
        yield url


def _write_passwords(path: Path, users: Mapping[str, str]) -> Path:
    path.touch(mode=0o600)
    for name, password in users.items():
        # bcrypt is all that the registry knows; -i takes the password from standard input, off the command line.
        subprocess.run(
            [required_program("htpasswd"), "-iB", "-C", "5", str(path), name],
            input=password.encode(),
            check=True,
            capture_output=True,
        )
    return path


def _asks_for_credentials(url: str, authority_pem: str | None) -> bool:
    """Whether a registry answers /v2/ with 401, as one with passwords does (distribution specification, end-1)."""
    trust = HTTPSHandler(context=ssl.create_default_context(cadata=authority_pem))
    try:
        with build_opener(ProxyHandler({}), trust).open(f"{url}/v2/", timeout=2):
            return False
    except HTTPError as error:
        with error:
            return error.code == 401
