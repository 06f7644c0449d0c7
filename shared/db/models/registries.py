"""Tables of registries (address, credentials, options, state of the circuit breaker) and of default registries."""

from enum import StrEnum

from sqlalchemy import Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import CreatedAt, IdentifiedBase, Millis, PlainText, Reference


class PauseCause(StrEnum):
    """The reasons for pausing a registry."""

    OPERATOR = "operator"
    """An operator paused it; only an operator resumes it."""
    AUTH = "auth"
    """It refuses the recorded credentials. Pushes with credentials of their own continue."""
    UNREACHABLE = "unreachable"
    """It does not respond, or responds with errors to every push."""


class Registry(IdentifiedBase):
    """A registry that images are pushed to.

    A deleted one keeps its row: for the history of pushes, and because the first row forbids pulls from the store.
    """

    __tablename__ = "registries"
    __table_args__ = (
        Index(
            "uq_registries_default",
            "is_default",
            unique=True,
            sqlite_where=text("is_default AND deleted_at IS NULL"),
            postgresql_where=text("is_default AND deleted_at IS NULL"),
        ),
    )

    name: Mapped[str | None] = mapped_column(String(32))
    registry_url: Mapped[str] = mapped_column(String(128))
    credentials: Mapped[str | None] = mapped_column(Text)
    """Encrypted username and password; None: the registry needs none."""
    push_credentials: Mapped[str | None] = mapped_column(Text)
    """Encrypted username and password of an account that may push; None: `credentials` push too."""
    is_default: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Pushes that name no registry go here, unless the algorithm or its owner has another default."""
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


class DefaultLevel(StrEnum):
    """What a row of `default_registries` is for. The installation's default is `Registry.is_default`."""

    ALGORITHM = "algorithm"
    OWNER = "owner"


class DefaultRegistry(IdentifiedBase):
    """The registry for pushes of one algorithm, or of one owner's algorithms, that name none."""

    __tablename__ = "default_registries"
    __table_args__ = (UniqueConstraint("level", "subject"),)

    level: Mapped[DefaultLevel] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(64))
    """The id of the algorithm, or the name of the owner."""
    registry_id: Mapped[Reference]
    push_credentials: Mapped[str | None] = mapped_column(Text)
    """Encrypted username and password for these pushes; None: those of the registry."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
