"""Owners and their API keys."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, CreatedAt, Id, Millis, Sequence


class KeyKind(StrEnum):
    """What a key may do, before its permissions narrow it."""

    ADMIN = "PlatformAdminKey"
    """Everything. `ManagementKey` is an old name of it."""
    ALGORITHM = "AlgorithmKey"
    """Manages and calls the algorithms of its owner, calls everybody's public ones."""


class Owner(Base):
    """A name under which algorithms live. Made by an administrator's first key for it."""

    __tablename__ = "owners"

    seq: Mapped[Sequence]
    id: Mapped[Id]
    username: Mapped[str] = mapped_column(String(64), unique=True)
    image_name: Mapped[str] = mapped_column(String(64), unique=True)
    """The name as image references spell it: `Foo` and `foo` would write into one repository."""
    served_at: Mapped[Millis | None]
    """When a push of this owner was claimed last: whose turn it is goes by this."""
    created_at: Mapped[CreatedAt]


class ApiKey(Base):
    """A key, of which only the digest is kept; revoked ones stay as rows."""

    __tablename__ = "api_keys"

    seq: Mapped[Sequence]
    id: Mapped[Id]
    owner: Mapped[str] = mapped_column(String(64), index=True)
    label: Mapped[str] = mapped_column(String(100))
    kind: Mapped[KeyKind] = mapped_column(String(32))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the secret, which has 256 random bits: nothing slower is needed."""
    mask: Mapped[str] = mapped_column(String(32))
    permissions: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[Millis | None]
