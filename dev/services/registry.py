"""Run a real registry (distribution) on a loopback port: with a password file, with tokens, with TLS."""

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
from dev.services.relay import relay
from dev.services.token_server import ISSUER, SERVICE, Accounts, token_server

PUSHER = MappingProxyType({"pusher": "secret"})


@dataclass(frozen=True)
class PrivateRegistry:
    """A running registry and its users."""

    host: str
    """Address and port, as in image references."""
    url: str
    users: dict[str, str]
    """Names and passwords."""
    authority_pem: str | None = None
    """The certificate authority to trust, if the registry has TLS."""


@contextmanager
def private_registry(
    directory: Path, *, users: Mapping[str, str] = PUSHER, tls: bool = False, port: int | None = None
) -> Iterator[PrivateRegistry]:
    """Run a registry with a password file during the block, with storage below `directory` and deletion enabled.

    Docker engines trust any certificate on 127.0.0.0/8; other HTTPS clients have to trust `authority_pem`.

    Args:
        users: names and passwords.
        tls: use HTTPS, with a certificate of a new authority.
        port: on 127.0.0.1, default: a free one. With the same directory and port a later registry has the same images

    Raises:
        ServiceFailedError: docker-registry or htpasswd is not installed, or it does not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    passwords = _write_passwords(directory / "htpasswd", users)
    certificate = write_server_certificate(directory / "tls") if tls else None
    auth = {"htpasswd": {"realm": "Longshore development", "path": str(passwords)}}
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
) -> Iterator[PrivateRegistry]:
    """Run a registry with a token server, whose accounts have different permissions, during the block.

    Both are at one origin: clients send a password over plain HTTP to no other port than the registry's.

    Raises:
        ServiceFailedError: docker-registry is not installed, or it does not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    own_port = free_port()
    with (
        token_server(accounts) as tokens,
        relay(f"127.0.0.1:{own_port}", _pass_on, others={"/token": tokens.host}) as host,
    ):
        bundle = directory / "tokens.pem"
        bundle.write_text(pem(tokens.certificate))
        auth = {
            "token": {
                "realm": f"http://{host}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(bundle),
            },
        }
        with _registry(directory, auth, None, own_port):
            users = {name: password for name, (password, _) in accounts.items()}
            yield PrivateRegistry(host=host, url=f"http://{host}", users=users)


def _pass_on(_method: str, _path: str, _body: bytes) -> None:
    return None


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
    authority_pem = certificate.authority_pem if certificate else None
    with running(
        "docker-registry",
        [required_program("docker-registry"), "serve", str(path)],
        log=directory / "registry.log",
        ready=lambda: _requires_credentials(url, authority_pem),
        grace=5,
    ):
        yield url


def _write_passwords(path: Path, users: Mapping[str, str]) -> Path:
    path.touch(mode=0o600)
    for name, password in users.items():
        # The registry supports bcrypt only; -i reads the password from standard input, not from the command line.
        subprocess.run(
            [required_program("htpasswd"), "-iB", "-C", "5", str(path), name],
            input=password.encode(),
            check=True,
            capture_output=True,
        )
    return path


def _requires_credentials(url: str, authority_pem: str | None) -> bool:
    """Return whether the response to /v2/ is 401, as of a registry with passwords (distribution-spec, end-1)."""
    trust = HTTPSHandler(context=ssl.create_default_context(cadata=authority_pem))
    try:
        with build_opener(ProxyHandler({}), trust).open(f"{url}/v2/", timeout=2):
            return False
    except HTTPError as error:
        with error:
            return error.code == 401
