"""External registries that an administrator recorded, and how they take pushes at the moment."""

from enum import StrEnum

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import Base, CreatedAt, Id, Millis, Sequence


class PauseCause(StrEnum):
    """Why no pushes go to a registry."""

    OPERATOR = "operator"
    """Somebody paused it; only somebody resumes it."""
    AUTH = "auth"
    """It refuses its own recorded credentials. Pushes that bring credentials of their own go on."""
    UNREACHABLE = "unreachable"
    """It does not answer, or answers everybody with errors."""


class Registry(Base):
    """Where images are pushed to. Deleted ones stay as rows: the history of pushes names them."""

    __tablename__ = "registries"

    seq: Mapped[Sequence]
    id: Mapped[Id]
    name: Mapped[str | None] = mapped_column(String(32))
    registry_url: Mapped[str] = mapped_column(String(128))
    credentials: Mapped[str | None] = mapped_column(Text)
    """Sealed username and password, or nothing for a registry that asks for none."""
    verify_tls: Mapped[bool] = mapped_column(default=True)
    ca_certificate: Mapped[str | None] = mapped_column(Text)
    plain_http: Mapped[bool] = mapped_column(default=False)
    transport: Mapped[str | None] = mapped_column(String(16))
    """`direct` or `engine`; nothing: as the setting says."""
    proxy_url: Mapped[str | None] = mapped_column(String(255))
    """HTTP proxy to it; nothing: as the setting says."""
    max_pushes: Mapped[int | None]
    """How many pushes it takes at once; nothing: as the setting says."""
    paused_at: Mapped[Millis | None]
    paused_by: Mapped[PauseCause | None] = mapped_column(String(16))
    pause_reason: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """Failures in a row that concern everybody; back to none with a success."""
    probe_at: Mapped[Millis | None]
    """When one push may try whether it works again; nothing where an operator paused it."""
    probes: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many such tries failed since it was paused."""
    throttled_until: Mapped[Millis | None]
    """It asked to slow down (429): nothing goes there before this time."""
    throttles: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many times in a row it asked; one push at a time until one succeeds."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    deleted_at: Mapped[Millis | None]
