"""The rows of recorded registries: found, recorded and changed."""

from typing import Any

from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session

from shared.db.models import Algorithm, ImagePush, Job, JobState, PauseCause, Registry
from shared.encryption import Keyring
from shared.errors import InvalidInputError, NotFoundError
from shared.net.connections import InvalidCertificateError, InvalidProxyError, Proxy, tls_context
from shared.registries.access import address_of, image_lock_name, repository_of
from shared.registries.blob_locations import forget_blob_locations
from shared.registries.circuit_breaker import resume
from shared.registries.credentials import encrypt_registry_credentials, fingerprint
from shared.registry.address import InvalidAddressError
from shared.registry.credentials import Credentials

_REGISTRY = select(Registry).where(Registry.id == bindparam("registry"), Registry.deleted_at.is_(None))
_REGISTRY_FOR_SHARE = _REGISTRY.with_for_update(read=True)
_REGISTRY_FOR_UPDATE = _REGISTRY.with_for_update()
_QUEUED_PUSHES = (
    select(Job, ImagePush, Algorithm)
    .join(ImagePush, and_(ImagePush.id == Job.push_id, ImagePush.generation == Job.generation))
    .join(Algorithm, Algorithm.id == Job.algorithm_id)
    .where(Job.registry_id == bindparam("registry"), Job.state == JobState.QUEUED)
    .with_for_update(of=Job)  # a job that is being claimed is not changed under its worker
)


def find_registry(session: Session, registry_id: str, *, for_update: bool = False, for_share: bool = False) -> Registry:
    """Return a registry that is recorded and not deleted.

    `for_update` locks the row for a change. `for_share` prevents a change without blocking other readers, so that
    pushes to one registry do not wait for each other.

    Raises:
        NotFoundError: there is no such registry.
    """
    query = _REGISTRY_FOR_UPDATE if for_update else _REGISTRY_FOR_SHARE if for_share else _REGISTRY
    registry: Registry | None = session.scalar(query, {"registry": registry_id})
    if registry is None:
        raise NotFoundError(f"No registry has the id {registry_id!r}; GET /v1/registries lists them.")
    return registry


def record_registry(
    session: Session, keyring: Keyring, state: dict[str, Any], credentials: Credentials | None
) -> Registry:
    """Add a registry.

    Raises:
        InvalidInputError: the address, the proxy or the certificate is invalid.
    """
    registry = Registry(**state)
    _validate(registry)
    session.add(registry)
    session.flush()
    if credentials is not None:
        registry.credentials = encrypt_registry_credentials(keyring, registry, credentials)
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
    """Change a registry. It loses its credentials if its fingerprint changes and no new credentials are given.

    Queued pushes go to the new address. Those with credentials of their own fail, because the registry was changed.

    Raises:
        InvalidInputError: the address, the proxy or the certificate is invalid.
    """
    old_fingerprint, old_url = fingerprint(registry), registry.registry_url
    for name, value in state.items():
        setattr(registry, name, value)
    _validate(registry)
    if credentials is not None:
        registry.credentials = encrypt_registry_credentials(keyring, registry, credentials)
    elif remove_credentials or fingerprint(registry) != old_fingerprint:
        registry.credentials = None
    if registry.paused_by != PauseCause.OPERATOR:
        resume(session, registry)  # the change may have fixed the cause of the failures
    session.flush()
    if registry.registry_url != old_url:
        forget_blob_locations(session, registry.id)
    for job, push, algorithm in session.execute(_QUEUED_PUSHES, {"registry": registry.id}):
        push.image = f"{repository_of(registry, algorithm)}:{job.git_hash}"
        push.registry_url = registry.registry_url
        job.lock_name = image_lock_name(registry, algorithm, job.git_hash)


def _validate(registry: Registry) -> None:
    try:
        if registry.proxy_url is not None and Proxy.parse(registry.proxy_url).headers:
            raise InvalidInputError(
                "proxy_url holds a user or password, which everybody who reads the registry would see: an operator "
                "gives it in LONGSHORE_REGISTRY_PROXY."
            )
        address_of(registry)
        if registry.ca_certificate is not None:
            tls_context(ca_certificate=registry.ca_certificate)
    except InvalidProxyError as error:
        raise InvalidInputError(str(error)) from None
    except InvalidAddressError as error:
        raise InvalidInputError(f"registry_url: {error}") from None
    except InvalidCertificateError as error:
        raise InvalidInputError(f"ca_certificate: {error}") from None
