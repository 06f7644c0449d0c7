"""Default registries: where pushes go that name no registry, and with which credentials.

The nearest one applies: that of the algorithm, of its owner, of the installation (`Registry.is_default`). The registry
is decided when a compile or publish is requested, the credentials when a worker claims the push.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, case, delete, exists, or_, select
from sqlalchemy.orm import Session

from shared.db.engine import insert_if_absent
from shared.db.models import Algorithm, DefaultLevel, DefaultRegistry, Job, Registry
from shared.encryption import Keyring
from shared.registries.credentials import CredentialsUpdate, encrypt_default_credentials
from shared.registries.rows import find_registry

INSTALLATION = "installation"
_NEAREST_FIRST = case((DefaultRegistry.level == DefaultLevel.ALGORITHM, 0), else_=1)
_APPLIES = or_(
    and_(DefaultRegistry.level == DefaultLevel.ALGORITHM, DefaultRegistry.subject == bindparam("algorithm")),
    and_(DefaultRegistry.level == DefaultLevel.OWNER, DefaultRegistry.subject == bindparam("owner")),
)
_APPLICABLE = (
    select(Registry, DefaultRegistry)
    .outerjoin(DefaultRegistry, and_(DefaultRegistry.registry_id == Registry.id, _APPLIES))
    .where(Registry.deleted_at.is_(None), or_(DefaultRegistry.id.is_not(None), Registry.is_default))
    .order_by(case((DefaultRegistry.id.is_(None), 1), else_=0), _NEAREST_FIRST)
    .limit(1)
)
_FOR_PUSHES = (
    select(DefaultRegistry)
    .where(
        DefaultRegistry.registry_id == bindparam("registry"), DefaultRegistry.push_credentials.is_not(None), _APPLIES
    )
    .order_by(_NEAREST_FIRST)
)
_LOCK_REGISTRY = (
    select(Registry)
    .where(Registry.id == bindparam("registry"), Registry.deleted_at.is_(None))
    .with_for_update(read=True)
    .execution_options(populate_existing=True)  # it may have been changed while this waited for the lock
)
HAS_DEFAULT_CREDENTIALS = exists(
    select(DefaultRegistry.seq)
    .where(
        DefaultRegistry.registry_id == Job.registry_id,
        DefaultRegistry.push_credentials.is_not(None),
        or_(
            and_(DefaultRegistry.level == DefaultLevel.ALGORITHM, DefaultRegistry.subject == Job.algorithm_id),
            and_(DefaultRegistry.level == DefaultLevel.OWNER, DefaultRegistry.subject == Job.owner),
        ),
    )
    .correlate(Job)
)
"""The condition that the default of a push's algorithm or owner is its registry, and has credentials for it."""


@dataclass(frozen=True)
class ApplicableDefault:
    """The registry for pushes that name none."""

    registry: Registry
    row: DefaultRegistry | None
    """None: it is the default of the installation."""

    @property
    def source(self) -> str:
        return INSTALLATION if self.row is None else self.row.level

    @property
    def has_push_credentials(self) -> bool:
        return (self.row or self.registry).push_credentials is not None


def applicable_default(session: Session, owner: str, algorithm_id: str | None = None) -> ApplicableDefault | None:
    """Return the default registry of an algorithm, or of an owner; None: there is none at any level."""
    found = session.execute(_APPLICABLE, {"owner": owner, "algorithm": algorithm_id or ""}).one_or_none()
    return None if found is None else ApplicableDefault(*found._tuple())


def lock_default(session: Session, algorithm: Algorithm) -> ApplicableDefault | None:
    """Return the default registry of an algorithm as `applicable_default` does, kept from being changed or deleted.

    A registry that was deleted meanwhile is nobody's default any more: then the next one applies.
    """
    while True:
        default = applicable_default(session, algorithm.owner, algorithm.id)
        if default is None or session.scalar(_LOCK_REGISTRY, {"registry": default.registry.id}) is not None:
            return default


def defaults_with_credentials(
    session: Session, registry_id: str, owner: str, algorithm_id: str | None = None
) -> Sequence[DefaultRegistry]:
    """Return the defaults whose credentials push to this registry, the nearest first."""
    return session.scalars(
        _FOR_PUSHES, {"registry": registry_id, "owner": owner, "algorithm": algorithm_id or ""}
    ).all()


def set_default(
    session: Session,
    keyring: Keyring,
    level: DefaultLevel,
    subject: str,
    registry_id: str,
    credentials: CredentialsUpdate,
) -> ApplicableDefault:
    """Set the default registry of an algorithm (its id) or owner (its name).

    Credentials that are neither given nor removed stay, unless they were for another registry.

    Raises:
        NotFoundError: there is no such registry.
    """
    registry = find_registry(session, registry_id, for_share=True)  # it cannot be deleted meanwhile
    insert_if_absent(
        session, DefaultRegistry, ("level", "subject"), level=level, subject=subject, registry_id=registry.id
    )
    row = session.scalars(
        select(DefaultRegistry)
        .where(DefaultRegistry.level == level, DefaultRegistry.subject == subject)
        .with_for_update()
    ).one()
    if row.registry_id != registry.id or credentials.removed:
        row.push_credentials = None
    row.registry_id = registry.id
    if credentials.given is not None:
        row.push_credentials = encrypt_default_credentials(keyring, row, credentials.given)
    session.flush()
    return ApplicableDefault(registry, row)


def remove_default(session: Session, level: DefaultLevel, subject: str) -> bool:
    """Remove the default of an algorithm or owner, with its credentials. Return whether there was one."""
    removed = delete(DefaultRegistry).where(DefaultRegistry.level == level, DefaultRegistry.subject == subject)
    return session.execute(removed.returning(DefaultRegistry.seq)).first() is not None


def remove_defaults_of_registry(session: Session, registry: Registry) -> list[tuple[str, str | None]]:
    """Remove every default that a registry is. Return whose it was: the level, and the name of the subject.

    The installation has no name.
    """
    removed: list[tuple[str, str | None]] = [(INSTALLATION, None)] if registry.is_default else []
    registry.is_default = False
    rows = session.execute(
        select(DefaultRegistry, Algorithm)
        .outerjoin(
            Algorithm, and_(DefaultRegistry.level == DefaultLevel.ALGORITHM, Algorithm.id == DefaultRegistry.subject)
        )
        .where(DefaultRegistry.registry_id == registry.id)
        .order_by(DefaultRegistry.seq)
    )
    removed += [(row.level, row.subject if algorithm is None else algorithm.path) for row, algorithm in rows]
    session.execute(delete(DefaultRegistry).where(DefaultRegistry.registry_id == registry.id))
    return removed
