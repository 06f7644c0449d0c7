"""The table of registries: address, credentials, options, and the state of the circuit breaker."""

from enum import StrEnum

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import CreatedAt, IdentifiedBase, Millis, PlainText


class PauseCause(StrEnum):
    """The reasons for pausing a registry."""

    OPERATOR = "operator"
    """An operator paused it; only an operator resumes it."""
    AUTH = "auth"
    """It refuses the recorded credentials. Pushes with credentials of their own continue."""
    UNREACHABLE = "unreachable"
    """It does not respond, or responds with errors to every push."""


class Registry(IdentifiedBase):
    """A registry that images are pushed to. A deleted registry keeps its row for the history of pushes."""

    __tablename__ = "registries"

    name: Mapped[str | None] = mapped_column(String(32))
    registry_url: Mapped[str] = mapped_column(String(128))
    credentials: Mapped[str | None] = mapped_column(Text)
    """Encrypted username and password; None: the registry needs none."""
    verify_tls: Mapped[bool] = mapped_column(default=True)
    ca_certificate: Mapped[str | None] = mapped_column(Text)
    plain_http: Mapped[bool] = mapped_column(default=False)
    transport: Mapped[str | None] = mapped_column(String(16))
    """`direct` or `engine`; None: LONGSHORE_TRANSPORT."""
    proxy_url: Mapped[str | None] = mapped_column(String(255))
    """HTTP proxy for this registry; None: LONGSHORE_REGISTRY_PROXY."""
    max_pushes: Mapped[int | None]
    """Maximum of concurrent pushes; None: LONGSHORE_REGISTRY_PUSHES."""
    paused_at: Mapped[Millis | None]
    paused_by: Mapped[PauseCause | None] = mapped_column(String(16))
    pause_reason: Mapped[str | None] = mapped_column(PlainText)
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """Consecutive failures that concern every push; reset by a success."""
    probe_at: Mapped[Millis | None]
    """When one push may probe it; None: an operator paused it."""
    probes: Mapped[int] = mapped_column(default=0, server_default="0")
    throttled_until: Mapped[Millis | None]
    """No push before this time, because it asked to slow down (429)."""
    throttles: Mapped[int] = mapped_column(default=0, server_default="0")
    """Consecutive requests to slow down. While it is above 0, one push runs at a time."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    deleted_at: Mapped[Millis | None]
