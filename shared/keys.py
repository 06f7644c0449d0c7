"""Create, authenticate and revoke API keys, and decide what a caller may do."""

import hashlib
import re
import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, Unpack

from sqlalchemy import Row, bindparam, func, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.engine import Database
from shared.db.models import Algorithm, ApiKey, KeyKind, Owner
from shared.errors import ConflictError, InvalidValueError, LimitReachedError, PermissionDeniedError
from shared.registry.reference import normalize_name
from shared.settings import settings

KEY_PREFIX = "sim"
"""The platform's prefix; its command line takes keys of this prefix and `KEY_RANDOM_CHARACTERS` more, and no others."""
KEY_RANDOM_CHARACTERS = 25
"""149 bits."""
_KEY_ALPHABET = string.ascii_letters + string.digits
MAX_CARRIED_OVER_LENGTH = 128
MIN_DISTINCT_CHARACTERS = 8
"""Of an existing key after its prefix; a random one has about 20."""
_CARRIED_OVER = re.compile(
    rf"{KEY_PREFIX}[A-Za-z0-9]{{{KEY_RANDOM_CHARACTERS},{MAX_CARRIED_OVER_LENGTH - len(KEY_PREFIX)}}}"
)
OWNER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,29}")
_KEY = select(ApiKey.id, ApiKey.owner, ApiKey.kind, ApiKey.permissions).where(
    ApiKey.digest == bindparam("digest"), ApiKey.revoked_at.is_(None)
)

_VALID_KEY = select(ApiKey.id).where(ApiKey.id == bindparam("key"), ApiKey.revoked_at.is_(None))


class InvalidKeyError(InvalidValueError):
    """Raised for an existing key that is not recorded. The text is a sentence that never contains the key."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request: the key, its owner, and what it allows."""

    key_id: str
    owner: str
    admin: bool
    may_manage: bool = True
    may_call: bool = True
    algorithms: tuple[str, ...] | None = None
    """The only algorithms that this key is for, as OWNER/NAME or OWNER/*; None: all that its owner may use."""

    def owns(self, owner: str) -> bool:
        return self.admin or self.owner == owner

    def may_read(self, algorithm: Algorithm) -> bool:
        """Return whether the caller may see versions, builds, logs and pushes of the algorithm."""
        return self.reads(algorithm.owner, algorithm.name)

    def reads(self, owner: str, name: str) -> bool:
        return self.owns(owner) and self.is_for(owner, name)

    def is_for(self, owner: str, name: str) -> bool:
        """Return whether the key may be used for this algorithm (`algo_acl`)."""
        if self.admin or self.algorithms is None:
            return True
        return f"{owner}/{name}" in self.algorithms or f"{owner}/*" in self.algorithms

    def require_admin(self) -> None:
        """Refuse a caller who is no administrator.

        Raises:
            PermissionDeniedError: the caller is no administrator.
        """
        if not self.admin:
            raise PermissionDeniedError("This needs a PlatformAdminKey; ask an administrator.")

    def require_owner(self, owner: str) -> None:
        """Refuse a caller who may not manage what belongs to `owner`.

        Raises:
            PermissionDeniedError: the caller may not act for this owner.
        """
        if not (self.owns(owner) and self.may_manage and (self.admin or self.algorithms is None)):
            raise PermissionDeniedError(
                f"This key may not manage algorithms of {owner}; use a key of {owner} or an admin key."
            )

    def require_manager(self, algorithm: Algorithm) -> None:
        """Refuse a caller who may not change, compile, publish or push the algorithm.

        Raises:
            PermissionDeniedError: the caller may not manage the algorithm.
        """
        if not (self.may_read(algorithm) and self.may_manage):
            raise PermissionDeniedError(
                f"This key may not manage {algorithm.path}; use a key of {algorithm.owner} that may, or an admin key."
            )

    def require_reader(self, algorithm: Algorithm) -> None:
        """Refuse a caller who may not see the algorithm's builds and pushes.

        Raises:
            PermissionDeniedError: the caller may not read the algorithm.
        """
        if not self.may_read(algorithm):
            raise PermissionDeniedError(
                f"This key may not read {algorithm.path}; use a key of {algorithm.owner} or an admin key."
            )

    def require_caller(self, algorithm: Algorithm) -> None:
        """Refuse a caller who may not call the algorithm, in any version.

        Raises:
            PermissionDeniedError: the key may not call algorithms.
        """
        if not self.may_call:
            raise PermissionDeniedError("This key may not call algorithms; use one with the permission allow_algo.")
        if not self.is_for(algorithm.owner, algorithm.name):
            raise PermissionDeniedError(f"This key is not for {algorithm.path}; use one whose algo_acl names it.")


def create_owner(session: Session, username: str) -> Owner:
    """Return the owner of this name, created if it is new.

    Raises:
        ConflictError: the name of another owner is the same in image references.
    """
    owner = session.scalar(select(Owner).where(Owner.username == username))
    if owner is not None:
        return owner
    twin = session.scalar(select(Owner).where(Owner.image_name == normalize_name(username)))
    if twin is not None:
        raise ConflictError(f"{username} and {twin.username} are the same name in image references; choose another.")
    owner = Owner(username=username, image_name=normalize_name(username))
    session.add(owner)
    session.flush()
    return owner


class KeyOptions(TypedDict):
    """The columns of a key that its creator chooses."""

    label: str
    kind: KeyKind
    permissions: NotRequired[dict[str, Any] | None]


def create_key(session: Session, owner: str, **options: Unpack[KeyOptions]) -> tuple[ApiKey, str]:
    """Create a key for an owner. Return it with its secret, which is not stored."""
    secret = KEY_PREFIX + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(KEY_RANDOM_CHARACTERS))
    return _add_key(session, owner, secret, options), secret


def carry_over_key(session: Session, owner: str, secret: str, **options: Unpack[KeyOptions]) -> ApiKey:
    """Record an existing key of the platform for an owner, so that what uses it keeps working.

    Raises:
        InvalidKeyError: it has not the form of a key, or can be guessed.
        ConflictError: it is known here already, in force or revoked, of whichever owner.
    """
    check_carried_over(secret)
    if session.scalar(select(ApiKey.id).where(ApiKey.digest == _digest(secret))) is not None:
        raise ConflictError("This key is known here already, or was revoked here; create another one.")
    return _add_key(session, owner, secret, options)


def check_carried_over(secret: str) -> str:
    """Return an existing key that may be recorded.

    Raises:
        InvalidKeyError: it has not the form of a key, or can be guessed. The text does not contain it.
    """
    if not _CARRIED_OVER.fullmatch(secret):
        raise InvalidKeyError(
            f"An existing key is {KEY_PREFIX} and at least {KEY_RANDOM_CHARACTERS} letters (A-Z, a-z) and digits, "
            f"{MAX_CARRIED_OVER_LENGTH} characters in all at most."
        )
    if len(set(secret.removeprefix(KEY_PREFIX))) < MIN_DISTINCT_CHARACTERS:
        raise InvalidKeyError(
            f"This key has fewer than {MIN_DISTINCT_CHARACTERS} different characters after {KEY_PREFIX}, so it could "
            "be guessed; create a new one."
        )
    return secret


def _add_key(session: Session, owner: str, secret: str, options: KeyOptions) -> ApiKey:
    key = ApiKey(owner=owner, digest=_digest(secret), mask=f"{secret[:6]}…{secret[-4:]}", **options)
    session.add(key)
    session.flush()
    return key


def require_room_for_key(session: Session, owner: str) -> None:
    """Refuse another key for an owner who has reached the limit.

    Raises:
        LimitReachedError: the limit is reached.
    """
    maximum = settings().max_keys_per_owner
    number = session.scalar(select(func.count(ApiKey.seq)).where(ApiKey.owner == owner, ApiKey.revoked_at.is_(None)))
    if number is not None and number >= maximum:
        raise LimitReachedError(
            f"{owner} has {number} keys, which is the limit (LONGSHORE_MAX_KEYS_PER_OWNER): revoke some."
        )


def authenticate_key(session: Session, secret: str) -> Caller | None:
    """Return the caller with this key; None: it is unknown or revoked."""
    return _caller_of(session.execute(_KEY, {"digest": _digest(secret)}).all())


class KnownKeys:
    """A cache of authenticated callers, so that not every request queries the database.

    A revoked key is refused immediately in the process that revokes it, and within `seconds` in all others.
    """

    def __init__(self, *, seconds: float = 1.0, max_keys: int = 10_000) -> None:
        self._seconds = seconds
        self._max_keys = max_keys
        self._known: dict[str, tuple[float, Caller]] = {}

    def authenticate_key(self, database: Database, secret: str) -> Caller | None:
        """Return the caller with this key; None: it is unknown or revoked. Unknown keys are not cached."""
        digest, now = _digest(secret), time.monotonic()
        cached_at, caller = self._known.get(digest, (0.0, None))
        if caller is not None and now - cached_at < self._seconds:
            return caller
        caller = _caller_of(database.ask(_KEY, digest=digest))
        if caller is None:
            self._known.pop(digest, None)
            return None
        if len(self._known) >= self._max_keys:
            self._known.clear()
        self._known[digest] = (now, caller)
        return caller

    def forget(self) -> None:
        self._known.clear()


known_keys = KnownKeys()


def _caller_of(rows: Sequence[Row[Any]]) -> Caller | None:
    if not rows:
        return None
    key = rows[0]
    permissions = key.permissions or {}
    listed = permissions.get("algo_acl")
    return Caller(
        key_id=key.id,
        owner=key.owner,
        admin=key.kind == KeyKind.ADMIN,
        may_manage=bool(permissions.get("allow_algo_management", True)),
        may_call=bool(permissions.get("allow_algo", True)),
        algorithms=None if listed is None else tuple(listed),
    )


def revoke_key(session: Session, key_id: str, owner: str) -> bool:
    """Revoke an owner's key. Return False if there is no such key or it is revoked already."""
    revoked = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.owner == owner, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now_ms())
        .returning(ApiKey.id)
    )
    known_keys.forget()
    return revoked.first() is not None


def is_revoked(database: Database, key_id: str) -> bool:
    """Return whether a key was revoked since it was authenticated, for requests that last."""
    return not database.ask(_VALID_KEY, key=key_id)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
