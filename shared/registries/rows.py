"""Recorded registries: where they are, and the credentials that open them."""

import hashlib
from typing import Any

from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session

from shared.cancellation import CancelToken
from shared.db.models import Algorithm, ImagePush, Job, JobState, PauseCause, Registry
from shared.encryption import Keyring
from shared.errors import ErrorClass, InvalidInputError, NotFoundError, WorkError
from shared.net.address_rules import registry_networks
from shared.net.connections import InvalidProxyError, Proxy, is_excepted
from shared.net.tls import tls_context
from shared.pushes.blob_locations import forget_blob_locations
from shared.registries.circuit_breaker import resume
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.reference import image_repository, repository_place
from shared.settings import settings


def find_registry(session: Session, registry_id: str, *, locked: bool = False, kept: bool = False) -> Registry:
    """A registry that is recorded and not deleted.

    `locked`: for a change of it. `kept`: so that nobody changes it meanwhile; those who only keep it do not wait for
    each other, or every push to one registry would be ordered after the other.

    Raises:
        NotFoundError: no such registry.
    """
    query = _LOCKED if locked else _KEPT if kept else _REGISTRY
    registry: Registry | None = session.scalar(query, {"registry": registry_id})
    if registry is None:
        raise NotFoundError(f"No registry has the id {registry_id!r}; GET /v1/registries lists them.")
    return registry


_REGISTRY = select(Registry).where(Registry.id == bindparam("registry"), Registry.deleted_at.is_(None))
_KEPT = _REGISTRY.with_for_update(read=True)
_LOCKED = _REGISTRY.with_for_update()


def record_registry(
    session: Session, keyring: Keyring, state: dict[str, Any], credentials: Credentials | None
) -> Registry:
    """Record a new registry.

    Raises:
        InvalidInputError: the address or a certificate is invalid.
    """
    registry = Registry(**state)
    _refuse_unusable(registry)
    session.add(registry)
    session.flush()
    if credentials is not None:
        registry.credentials = seal_own(keyring, registry, credentials)
        session.flush()
    return registry


def change_registry(
    session: Session,
    keyring: Keyring,
    registry: Registry,
    state: dict[str, Any],
    credentials: Credentials | None,
    *,
    remove_credentials: bool,
) -> None:
    """Change a registry. What it is trusted by changes only together with its credentials, or loses them.

    Pushes that wait go to the changed place; those with credentials of their own find that it was changed.

    Raises:
        InvalidInputError: the address or a certificate is invalid.
    """
    trusted, was_at = fingerprint(registry), registry.registry_url
    for name, value in state.items():
        setattr(registry, name, value)
    _refuse_unusable(registry)
    if credentials is not None:
        registry.credentials = seal_own(keyring, registry, credentials)
    elif remove_credentials or fingerprint(registry) != trusted:
        registry.credentials = None
    if registry.paused_by != PauseCause.OPERATOR:
        resume(session, registry)  # what failed for everybody may be what was just changed
    session.flush()
    if registry.registry_url != was_at:
        forget_blob_locations(session, registry.id)
    _readdress_waiting(session, registry)


def _readdress_waiting(session: Session, registry: Registry) -> None:
    waiting = session.execute(
        select(Job, ImagePush, Algorithm)
        .join(ImagePush, and_(ImagePush.id == Job.push_id, ImagePush.generation == Job.generation))
        .join(Algorithm, Algorithm.id == Job.algorithm_id)
        .where(Job.registry_id == registry.id, Job.state == JobState.QUEUED)
        .with_for_update(of=Job)  # one that is claimed at this moment is not moved under its worker
    )
    for job, push, algorithm in waiting:
        push.image = f"{repository_of(registry, algorithm)}:{job.git_hash}"
        push.registry_url = registry.registry_url
        job.lock_name = place_of(registry, algorithm, job.git_hash)


def _refuse_unusable(registry: Registry) -> None:
    if registry.proxy_url is not None:
        try:
            proxy = Proxy.parse(registry.proxy_url)
        except InvalidProxyError as error:
            raise InvalidInputError(str(error)) from None
        if proxy.headers:
            raise InvalidInputError(
                "proxy_url holds a user or password, which everybody who reads the registry would see: an operator "
                "gives it in LONGSHORE_REGISTRY_PROXY."
            )
    try:
        address_of(registry)
    except ValueError as error:
        raise InvalidInputError(f"registry_url: {error}") from None
    if registry.ca_certificate is not None:
        try:
            tls_context(ca_certificate=registry.ca_certificate)
        except ValueError as error:
            raise InvalidInputError(f"ca_certificate: {error}") from None


def address_of(registry: Registry) -> RegistryAddress:
    """Where the registry is."""
    return RegistryAddress.parse(registry.registry_url, plain_http=registry.plain_http)


def client_of(
    registry: Registry, credentials: Credentials | None, *, stop: CancelToken | None = None
) -> RegistryClient:
    """A client that speaks to the registry as its options say.

    Raises:
        WorkError: its `ca_certificate` or its proxy is none (invalid).
    """
    address = address_of(registry)
    return RegistryClient(
        address,
        credentials,
        verify_tls=registry.verify_tls,
        ca_certificate=registry.ca_certificate,
        proxy=_proxy_to(registry, address),
        stop=stop,
    )


def _proxy_to(registry: Registry, address: RegistryAddress) -> Proxy | None:
    """Its own proxy, in a network that a registry may be in; else the operator's, but not to where none is wanted."""
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
    """The repository of an algorithm's images in a registry: HOST[:PORT]/path/owner/name."""
    return image_repository(address_of(registry), algorithm.owner, algorithm.name)


def place_of(registry: Registry, algorithm: Algorithm, git_hash: str) -> str:
    """The lock on an image reference, in one spelling: two registry rows may name one place."""
    return f"image:{repository_place(address_of(registry), algorithm.owner, algorithm.name)}:{git_hash}"


def fingerprint(registry: Registry) -> str:
    """What credentials are bound to: scheme, host and the ways of trusting it, so that a changed registry gets none."""
    address = address_of(registry)
    said = [address.origin, registry.verify_tls, registry.ca_certificate or "", registry.plain_http]
    if registry.proxy_url:
        said.append(registry.proxy_url)  # over plain HTTP it reads the password
    return hashlib.sha256(repr(tuple(said)).encode()).hexdigest()


def seal_own(keyring: Keyring, registry: Registry, credentials: Credentials) -> str:
    """Seal a registry's own credentials for its row."""
    return keyring.seal(_document(credentials), identity=_own_identity(registry.id))


def open_own(keyring: Keyring, registry: Registry) -> Credentials | None:
    """The registry's own credentials, if it has any.

    Raises:
        DecryptionError: the key that sealed them is gone.
    """
    if registry.credentials is None:
        return None
    return Credentials(**keyring.open(registry.credentials, identity=_own_identity(registry.id)))


def seal_for_job(keyring: Keyring, job_id: str, bound_to: str, credentials: Credentials) -> str:
    """Seal credentials given for one push, bound to its job and to the registry as it is now."""
    return keyring.seal(_document(credentials), identity=_job_identity(job_id, bound_to))


def open_for_job(keyring: Keyring, job_id: str, bound_to: str, sealed: str) -> Credentials:
    """The credentials given for one push.

    Raises:
        DecryptionError: the registry was changed since, or the key that sealed them is gone.
    """
    return Credentials(**keyring.open(sealed, identity=_job_identity(job_id, bound_to)))


def _document(credentials: Credentials) -> dict[str, str]:
    return {"username": credentials.username, "password": credentials.password}


def _own_identity(registry_id: str) -> str:
    return f"registries/{registry_id}/credentials"


def _job_identity(job_id: str, bound_to: str) -> str:
    return f"jobs/{job_id}/credentials/{bound_to}"
