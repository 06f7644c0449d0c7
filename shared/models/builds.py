"""Builds: one per compile."""

from enum import StrEnum

from sqlalchemy import BigInteger, Index, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, CreatedAt, Id, Millis, Reference, Sequence


class BuildStatus(StrEnum):
    """How far a build is. The interface shows `queued` as `in-progress` and `cancelled` as `failed`."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self in (BuildStatus.SUCCEEDED, BuildStatus.FAILED, BuildStatus.CANCELLED)


class Build(Base):
    """The making of one image of one version."""

    __tablename__ = "builds"
    __table_args__ = (Index("ix_builds_algorithm_seq", "algorithm_id", "seq"),)

    seq: Mapped[Sequence]
    id: Mapped[Id]
    algorithm_id: Mapped[str] = mapped_column(String(36))
    version_id: Mapped[Reference]
    job_id: Mapped[str] = mapped_column(String(36))
    """The job that makes this build."""
    commit_sha: Mapped[str] = mapped_column(String(64))
    status: Mapped[BuildStatus] = mapped_column(String(16), default=BuildStatus.QUEUED)
    log: Mapped[str] = mapped_column(Text, default="", deferred=True)
    message: Mapped[str | None] = mapped_column(Text)
    """Why it failed, in a sentence."""
    image_id: Mapped[str | None] = mapped_column(String(80))
    """The engine's id of the image (sha256:…): the digest of its configuration."""
    manifest_digest: Mapped[str | None] = mapped_column(String(80))
    """Of its manifest in the image store; nothing where it was built on an engine before there was a store."""
    image_bytes: Mapped[int | None] = mapped_column(BigInteger)
    refreshes_environment: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the requirements are resolved anew, though an environment for them may be there."""
    environment_key: Mapped[str | None] = mapped_column(String(80))
    created_at: Mapped[CreatedAt]
    started_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]
