"""External registries that an administrator recorded."""

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.clock import now_ms
from shared.models.base import Base, CreatedAt, Id, Millis, Sequence


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
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    deleted_at: Mapped[Millis | None]
