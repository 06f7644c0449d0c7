"""Where in a registry a layer is already: what makes a push to another repository there a mount instead of an upload."""

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Sequence


class RegistryBlob(Base):
    """A large layer that was pushed to a registry, and into which repository last. A hint: the registry may have lost it."""

    __tablename__ = "registry_blobs"
    __table_args__ = (UniqueConstraint("registry_id", "digest"),)

    seq: Mapped[Sequence]
    registry_id: Mapped[str] = mapped_column(String(36))
    digest: Mapped[str] = mapped_column(String(80))
    repository: Mapped[str] = mapped_column(String(255))
    """As the registry itself calls it."""
