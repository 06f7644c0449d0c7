"""The engine transport: the engine compresses and uploads the layers; Longshore asks the registry before and after.

What an engine trusts is configured on its machine, not per push: a push whose registry options the engine does not
fulfil is refused.
"""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.pushes.progress import Progress
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from workers.docker.connection import engine, engine_errors
from workers.docker.push import push_image
from workers.pushes.transports.transport import PushedImage


class EngineTransport:
    """Push an image of the Docker engine (a `Transport`).

    The engine compresses layers itself, so the digest differs from that of the direct transport (rule 7).
    """

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        repository_path: str,
        image_id: str,
        *,
        verify_tls: bool,
        ca_certificate: str | None,
        proxy_url: str | None,
        stop: CancelToken,
    ) -> None:
        self._client = client
        self._repository = repository
        self._path = repository_path
        self._image_id = image_id
        self._verify_tls = verify_tls
        self._ca_certificate = ca_certificate
        self._proxy_url = proxy_url
        self._stop = stop

    def push(
        self,
        tags: tuple[str, ...],
        *,
        before_tag: Callable[[str], None],
        on_progress: Callable[[Progress, str], None],
    ) -> PushedImage:
        if self._proxy_url is not None:
            raise WorkError(
                ErrorClass.INVALID,
                "pushes through the Docker engine use the engine's own proxy: take proxy_url off the registry, or set "
                "its transport to direct",
            )
        refusal = tls_refusal(self._client.address, verify_tls=self._verify_tls, ca_certificate=self._ca_certificate)
        if refusal is not None:
            raise WorkError(ErrorClass.INVALID, refusal)
        digests = set()
        for tag in tags:
            before_tag(tag)
            digests.add(self._push_tag(tag, on_progress))
        if len(digests) != 1:
            raise WorkError(ErrorClass.TRANSIENT, "The engine pushed different bytes for the two tags of one image.")
        digest = digests.pop()
        for tag in tags:
            self._client.confirm(self._path, tag, digest)
        return PushedImage(digest)

    def _push_tag(self, tag: str, on_progress: Callable[[Progress, str], None]) -> str:
        try:
            return push_image(
                self._image_id,
                self._repository,
                tag,
                self._client.credentials,
                on_progress=lambda progress: on_progress(
                    progress, f"Pushes {tag}: {progress.layers_done} of {progress.layers_total} layers are there."
                ),
                stop=self._stop,
            )
        except WorkError as error:
            # The token that the engine got at the beginning can expire during the upload: if the registry still accepts
            # the credentials, the error is transient.
            if error.error_class != ErrorClass.AUTH or self._client.push_refusal(self._path) is not None:
                raise
            raise WorkError(
                ErrorClass.TRANSIENT, f"{error.message} When asked again, the registry took the same credentials."
            ) from error


def tls_refusal(address: RegistryAddress, *, verify_tls: bool, ca_certificate: str | None) -> str | None:
    """Return why the engine cannot push to this registry with these TLS options, if so.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    if ca_certificate:
        return (
            "pushes go through the Docker engine, which cannot be given a registry's ca_certificate: install it on "
            f"the engine's machine as /etc/docker/certs.d/{address.authority}/ca.crt and remove the option"
        )
    if (verify_tls and not address.plain_http) or _is_insecure_registry(address):
        return None
    return (
        "pushes go through the Docker engine, which cannot be told per registry to "
        f"{'use plain HTTP' if address.plain_http else 'skip the verification of TLS'}: add "
        f'"{address.authority}" to insecure-registries in the engine\'s daemon.json and restart it'
    )


def _is_insecure_registry(address: RegistryAddress) -> bool:
    """Return whether the engine is configured to push to the registry without verification."""
    with engine_errors():
        configuration: dict[str, Any] = engine().info().get("RegistryConfig") or {}
    entry = (configuration.get("IndexConfigs") or {}).get(address.authority)
    if entry is not None:
        return not entry.get("Secure", True)
    networks = [ipaddress.ip_network(text) for text in configuration.get("InsecureRegistryCIDRs") or []]
    return any(ip in network for ip in _resolve(address.host) for network in networks)


def _resolve(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Resolve as the engine does: one address within its insecure networks is enough for it."""
    try:
        entries = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]
