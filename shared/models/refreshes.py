"""Refreshes: what a job of that kind is to do, and how far it is."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, CreatedAt, Document, Id, Reference, Sequence


class Refresh(Base):
    """Nodes, or what runs on them, made to ask the registries afresh."""

    __tablename__ = "refreshes"

    seq: Mapped[Sequence]
    id: Mapped[Id]
    job_id: Mapped[Reference]
    scope: Mapped[str] = mapped_column(String(16))
    """`nodes` or `runners`."""
    options: Mapped[Document]
    """What was asked for, as it was asked for."""
    progress: Mapped[Document]
    """How far it is with each node, so that another worker goes on where it was."""
    created_at: Mapped[CreatedAt]
