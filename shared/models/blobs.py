"""Where in a registry a layer is already, so that a push to another repository there mounts it."""

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Sequence


class RegistryBlob(Base):
    """A large layer and the repository it was pushed to last: a hint, since the registry may have lost it."""

    __tablename__ = "registry_blobs"
    __table_args__ = (UniqueConstraint("registry_id", "digest"),)

    seq: Mapped[Sequence]
    registry_id: Mapped[str] = mapped_column(String(36))
    digest: Mapped[str] = mapped_column(String(80))
    repository: Mapped[str] = mapped_column(String(255))
    """As the registry itself calls it."""
