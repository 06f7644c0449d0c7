"""The engine's own push: it compresses the layers and uploads them; Longshore asks the registry before and after.

Whether the engine can push to a registry as its options ask: what it trusts is set up with it, not per push.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from workers.docker.connection import engine, engine_errors
from workers.docker.push import push_image
from workers.pushes.transports.transport import PushedImage, PushProgress


class EngineTransport:
    """Pushes an image that is on the Docker engine (a `Transport`).

    The engine makes its own bytes of a layer, so the digest is another one than the direct transport's (rule 7).
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
        on_progress: Callable[[PushProgress, str], None],
    ) -> PushedImage:
        """Push every tag, and have the registry confirm each.

        Raises:
            Stopped: the stop was asked for.
            WorkError: what the registry or the engine said, classified.
        """
        self._refuse_unfit()
        digests = set()
        for tag in tags:
            before_tag(tag)
            digests.add(self._pushed(tag, on_progress))
        if len(digests) != 1:
            raise WorkError(ErrorClass.TRANSIENT, "The engine pushed different bytes for the two tags of one image.")
        digest = digests.pop()
        for tag in tags:
            self._client.confirm(self._path, tag, digest)
        return PushedImage(digest)

    def _refuse_unfit(self) -> None:
        if self._proxy_url is not None:
            raise WorkError(
                ErrorClass.INVALID,
                "pushes through the Docker engine use the engine's own proxy: take proxy_url off the registry, or set "
                "its transport to direct",
            )
        refusal = tls_refusal(self._client.address, verify_tls=self._verify_tls, ca_certificate=self._ca_certificate)
        if refusal is not None:
            raise WorkError(ErrorClass.INVALID, refusal)

    def _pushed(self, tag: str, on_progress: Callable[[PushProgress, str], None]) -> str:
        def show(seen: PushProgress) -> None:
            on_progress(seen, f"Pushes {tag}: {seen.layers_done} of {seen.layers_total} layers are there.")

        with self._refusal_looked_at_again():
            return push_image(
                self._image_id, self._repository, tag, self._client.credentials, on_progress=show, stop=self._stop
            )

    @contextmanager
    def _refusal_looked_at_again(self) -> Iterator[None]:
        """The registry took the credentials a moment ago: where it still does, a refusal in mid-push is transient.

        A token that the engine got at the beginning can end while it still uploads.
        """
        try:
            yield
        except WorkError as error:
            if error.error_class != ErrorClass.AUTH or self._client.push_refusal(self._path) is not None:
                raise
            raise WorkError(
                ErrorClass.TRANSIENT, f"{error.message} When asked again, the registry took the same credentials."
            ) from error


def tls_refusal(address: RegistryAddress, *, verify_tls: bool, ca_certificate: str | None) -> str | None:
    """The sentence with which a push to this registry through the engine is refused, or None.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    if ca_certificate:
        return (
            "pushes go through the Docker engine, which cannot be given a registry's ca_certificate: install it on "
            f"the engine's machine as /etc/docker/certs.d/{address.authority}/ca.crt and remove the option"
        )
    if (verify_tls and not address.plain_http) or _engine_trusts_blindly(address):
        return None
    what = "use plain HTTP" if address.plain_http else "skip the verification of TLS"
    return (
        f"pushes go through the Docker engine, which cannot be told per registry to {what}: add "
        f'"{address.authority}" to insecure-registries in the engine\'s daemon.json and restart it'
    )


def _engine_trusts_blindly(address: RegistryAddress) -> bool:
    with engine_errors():
        configuration: dict[str, Any] = engine().info().get("RegistryConfig") or {}
    known = (configuration.get("IndexConfigs") or {}).get(address.authority)
    if known is not None:
        return not known.get("Secure", True)
    networks = [ipaddress.ip_network(text) for text in configuration.get("InsecureRegistryCIDRs") or []]
    return any(found in network for found in _addresses(address.host) for network in networks)


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What the name stands for; the engine asks the resolver too, and trusts blindly if any of them is in its list."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
