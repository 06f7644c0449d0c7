"""Calls whose callers did not wait (`output=void`), and how they ended."""

from enum import StrEnum

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, CreatedAt, Id, Millis, Sequence


class CallState(StrEnum):
    """How far a call is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The algorithm answered with an error, or was not reached; the message says which."""
    LOST = "lost"
    """The process that made the call went away, so its end is not known. It is not made again: that may do harm."""


class CallRequest(Base):
    """One such call. Its input and its result are not kept."""

    __tablename__ = "call_requests"
    __table_args__ = (Index("ix_call_requests_deadline", "deadline_at"),)

    seq: Mapped[Sequence]
    id: Mapped[Id]
    caller: Mapped[str] = mapped_column(String(64))
    """The owner whose key called."""
    algorithm_id: Mapped[str] = mapped_column(String(36))
    version_id: Mapped[str] = mapped_column(String(36))
    state: Mapped[CallState] = mapped_column(String(16), default=CallState.RUNNING)
    error_type: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int | None]
    """How long the algorithm had it."""
    created_at: Mapped[CreatedAt]
    deadline_at: Mapped[Millis]
    """Running beyond this time, it is lost."""
    ended_at: Mapped[Millis | None]
