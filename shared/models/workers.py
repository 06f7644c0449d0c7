"""Worker nodes: who is alive, on which queues, and whether its engine answers."""

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, CreatedAt, Millis, Sequence


class WorkerProcess(Base):
    """A worker's parent process, refreshed while it lives and removed when it stops."""

    __tablename__ = "worker_processes"

    seq: Mapped[Sequence]
    name: Mapped[str] = mapped_column(String(128), unique=True)
    queues: Mapped[str] = mapped_column(String(128))
    """Comma-separated, with a comma at both ends."""
    problem: Mapped[str | None] = mapped_column(Text)
    """What keeps it from working (no engine), in a sentence."""
    started_at: Mapped[CreatedAt]
    seen_at: Mapped[Millis]
