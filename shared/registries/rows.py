"""The rows of recorded registries: found, recorded and changed."""

from typing import Any

from sqlalchemy import and_, bindparam, or_, select, update
from sqlalchemy.orm import Session

from shared.db.models import Algorithm, DefaultRegistry, ImagePush, Job, JobState, PauseCause, Registry
from shared.encryption import Keyring
from shared.errors import InvalidInputError, NotFoundError
from shared.net.connections import InvalidCertificateError, InvalidProxyError, Proxy, tls_context
from shared.registries.access import address_of, image_lock_name, repository_of
from shared.registries.blob_locations import forget_blob_locations
from shared.registries.circuit_breaker import resume
from shared.registries.credentials import (
    CredentialsUpdate,
    encrypt_push_account,
    encrypt_registry_credentials,
    fingerprint,
)
from shared.registry.address import InvalidAddressError
from shared.registry.credentials import Credentials

_REGISTRY = select(Registry).where(Registry.id == bindparam("registry"), Registry.deleted_at.is_(None))
_REGISTRY_FOR_SHARE = _REGISTRY.with_for_update(read=True)
_REGISTRY_FOR_UPDATE = _REGISTRY.with_for_update()
_LOCK_WITH_DEFAULT = (
    select(Registry.id)
    .where(Registry.deleted_at.is_(None), or_(Registry.id == bindparam("registry"), Registry.is_default))
    .order_by(Registry.id)
    .with_for_update()
)
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


def lock_with_default(session: Session, registry_id: str) -> None:
    """Lock a registry that becomes the installation's default, together with the present default (`shared.fence`)."""
    session.execute(_LOCK_WITH_DEFAULT, {"registry": registry_id}).all()


def record_registry(
    session: Session,
    keyring: Keyring,
    state: dict[str, Any],
    credentials: Credentials | None,
    push_credentials: Credentials | None = None,
) -> Registry:
    """Add a registry. If it is the installation's default, the former one is not any more.

    Raises:
        InvalidInputError: the address, the proxy or the certificate is invalid.
        sqlalchemy.exc.IntegrityError: another request set the default at the same time.
    """
    registry = Registry(**state)
    _validate(registry)
    if registry.is_default:
        _end_present_default(session)
    session.add(registry)
    session.flush()
    if credentials is not None:
        registry.credentials = encrypt_registry_credentials(keyring, registry, credentials)
    if push_credentials is not None:
        registry.push_credentials = encrypt_push_account(keyring, registry, push_credentials)
    session.flush()
    return registry


def change_registry(
    session: Session,
    keyring: Keyring,
    registry: Registry,
    state: dict[str, Any],
    credentials: CredentialsUpdate,
    push_credentials: CredentialsUpdate = CredentialsUpdate(),
) -> None:
    """Change a registry. If its fingerprint changes, it loses the credentials that are not given anew.

    The defaults of algorithms and owners that it is lose theirs then. Queued pushes go to the new address. Those with
    credentials of their own fail, because the registry was changed.

    Raises:
        InvalidInputError: the address, the proxy or the certificate is invalid.
        sqlalchemy.exc.IntegrityError: another request set the default at the same time.
    """
    old_fingerprint, old_url = fingerprint(registry), registry.registry_url
    if state.get("is_default") and not registry.is_default:
        _end_present_default(session)
    for name, value in state.items():
        setattr(registry, name, value)
    _validate(registry)
    is_elsewhere = fingerprint(registry) != old_fingerprint
    if credentials.given is not None:
        registry.credentials = encrypt_registry_credentials(keyring, registry, credentials.given)
    elif credentials.removed or is_elsewhere:
        registry.credentials = None
    if push_credentials.given is not None:
        registry.push_credentials = encrypt_push_account(keyring, registry, push_credentials.given)
    elif push_credentials.removed or is_elsewhere:
        registry.push_credentials = None
    if registry.paused_by != PauseCause.OPERATOR:
        resume(session, registry)  # the change may have fixed the cause of the failures
    session.flush()
    if is_elsewhere:
        session.execute(
            update(DefaultRegistry).where(DefaultRegistry.registry_id == registry.id).values(push_credentials=None)
        )
    if registry.registry_url != old_url:
        forget_blob_locations(session, registry.id)
    for job, push, algorithm in session.execute(_QUEUED_PUSHES, {"registry": registry.id}):
        push.image = f"{repository_of(registry, algorithm)}:{job.git_hash}"
        push.registry_url = registry.registry_url
        job.lock_name = image_lock_name(registry, algorithm, job.git_hash)


def _end_present_default(session: Session) -> None:
    session.execute(update(Registry).where(Registry.is_default).values(is_default=False))


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
