"""How a recorded registry is reached: its address, the client for it, and the names of images in it."""

from shared.cancellation import CancelToken
from shared.db.models import Algorithm, Registry
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import registry_networks
from shared.net.connections import InvalidProxyError, Proxy, is_excepted
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.reference import canonical_repository, image_repository
from shared.settings import settings


def address_of(registry: Registry) -> RegistryAddress:
    return RegistryAddress.parse(registry.registry_url, plain_http=registry.plain_http)


def client_of(
    registry: Registry, credentials: Credentials | None, *, cancel_token: CancelToken | None = None
) -> RegistryClient:
    """Return a client that uses the TLS and proxy options of the registry.

    Raises:
        WorkError: `ca_certificate` or the proxy is invalid (invalid).
    """
    address = address_of(registry)
    return RegistryClient(
        address,
        credentials,
        verify_tls=registry.verify_tls,
        ca_certificate=registry.ca_certificate,
        proxy=_proxy_for(registry, address),
        cancel_token=cancel_token,
    )


def _proxy_for(registry: Registry, address: RegistryAddress) -> Proxy | None:
    """Return the registry's own proxy, else the operator's unless the host is excepted from it.

    The registry's own proxy must be in a network that registries may be in; the operator's may be anywhere.
    """
    try:
        if registry.proxy_url is not None:
            return Proxy.parse(registry.proxy_url, registry_networks())
        configured = settings().registry_proxy
        if configured is None or is_excepted(address.host, settings().registry_no_proxy):
            return None
        return Proxy.parse(configured.get_secret_value())
    except InvalidProxyError as error:
        raise WorkError(ErrorClass.INVALID, str(error)) from None


def repository_of(registry: Registry, algorithm: Algorithm) -> str:
    """Return the repository of an algorithm's images: HOST[:PORT]/path/owner/name."""
    return image_repository(address_of(registry), algorithm.owner, algorithm.name)


def image_lock_name(registry: Registry, algorithm: Algorithm, git_hash: str) -> str:
    """Return the name of the lock on an image reference.

    The reference is in its canonical spelling, because two registry rows may name the same registry.
    """
    return f"image:{canonical_repository(address_of(registry), algorithm.owner, algorithm.name)}:{git_hash}"
