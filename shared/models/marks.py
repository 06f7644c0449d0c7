"""Marks: when something that must keep happening happened last."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Millis, Sequence


class PeriodicRun(Base):
    """The last time of one recurring thing."""

    __tablename__ = "marks"

    seq: Mapped[Sequence]
    name: Mapped[str] = mapped_column(String(32), unique=True)
    at: Mapped[Millis]
