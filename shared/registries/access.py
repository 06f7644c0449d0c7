"""The client for a recorded registry: its address, its options, the names of images in it, and a check of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from shared.cancellation import CancelToken, ends_within
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

    The reference is in its canonical form, because two registry rows may name the same registry.
    """
    return f"image:{canonical_repository(address_of(registry), algorithm.owner, algorithm.name)}:{git_hash}"


@dataclass
class RegistryCheck:
    """The result of a check (contract: `POST /v1/registries/ID/check`)."""

    reachable: bool = False
    """Whether a container registry answered."""
    authenticated: bool = False
    """Whether the registry asked for credentials and accepted those it was given."""
    can_push: bool = False
    can_pull: bool = False
    message: str = ""


def check_registry(client: RegistryClient, repository_path: str, *, seconds: float = 8.0) -> RegistryCheck:
    """Check a registry with the client's credentials, in at most `seconds`; `repository_path` is the push target.

    Errors of the registry are part of the result. After a timeout the client cannot be used any more, and the result
    is what was found out until then.

    Raises:
        WorkCancelledError: the client's token was cancelled.
    """
    check = RegistryCheck()
    try:
        if not ends_within(seconds, lambda: _run_check(check, client, repository_path), name="registry-check"):
            client.abort()
            return replace(check, message=f"{client.host} did not complete the check within {seconds:g} seconds.")
    except WorkError as error:
        check.message = error.message
    return check


def _run_check(check: RegistryCheck, client: RegistryClient, repository_path: str) -> None:
    try:
        client.ping()
    except WorkError as error:
        # A refusal of the credentials, or a request to slow down, is a registry's response too.
        check.reachable = error.error_class in {ErrorClass.AUTH, ErrorClass.THROTTLED}
        raise
    check.reachable = True
    check.authenticated = accepted_at_login = _accepted_credentials(client)
    push_error = _error_of(lambda: client.push_refusal(repository_path))
    check.can_push = push_error is None
    pull_error = _error_of(lambda: client.pull_refusal(repository_path))
    check.can_pull = pull_error is None
    # Some registries ask for credentials at pushes only.
    check.authenticated = _accepted_credentials(client) and (check.can_push or accepted_at_login)
    errors = [error.message for error in (push_error, pull_error) if error]
    check.message = " ".join([_summary(check, client), *dict.fromkeys(errors)])


def _accepted_credentials(client: RegistryClient) -> bool:
    return client.credentials is not None and client.was_challenged


def _summary(check: RegistryCheck, client: RegistryClient) -> str:
    allowed = [action for action, can in (("pushing", check.can_push), ("pulling", check.can_pull)) if can]
    allows = f"allows {' and '.join(allowed)}" if allowed else "allows neither pushing nor pulling"
    if check.authenticated:
        return f"{client.host} accepts the credentials and {allows} with them."
    if client.credentials is None:
        return f"{client.host} {allows} without credentials."
    if not client.was_challenged:
        return f"{client.host} never asked for the credentials and {allows} without any."
    return f"{client.host} {allows}."


def _error_of(probe: Callable[[], WorkError | None]) -> WorkError | None:
    try:
        return probe()
    except WorkError as error:
        return error
