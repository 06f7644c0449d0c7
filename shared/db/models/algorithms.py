"""Algorithms and their versions.

Builds: one per compile.
"""

from enum import StrEnum

from sqlalchemy import BigInteger, Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import Base, CreatedAt, Document, Id, Millis, Reference, Sequence


class Algorithm(Base):
    """A git repository of source with a name. Deleted ones stay as rows, their name is free again."""

    __tablename__ = "algorithms"
    __table_args__ = (
        Index("ix_algorithms_owner_name", "owner", "name"),
        Index(
            "uq_algorithms_image_path",
            "image_path",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    seq: Mapped[Sequence]
    id: Mapped[Id]
    owner: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    image_path: Mapped[str] = mapped_column(String(160))
    """OWNER/NAME as image references spell it."""
    details: Mapped[Document]
    settings: Mapped[Document]
    sample_input: Mapped[str | None] = mapped_column(Text)
    repository_url: Mapped[str | None] = mapped_column(String(512))
    """A repository elsewhere; nothing where Longshore hosts it."""
    source_credentials: Mapped[str | None] = mapped_column(Text)
    """Sealed username and password of a private repository elsewhere."""
    compiled_head: Mapped[str | None] = mapped_column(String(64))
    """The newest head of the hosted default branch that was seen; a head that differs was pushed before a crash."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    deleted_at: Mapped[Millis | None]

    @property
    def path(self) -> str:
        """OWNER/NAME."""
        return f"{self.owner}/{self.name}"

    @property
    def hosted(self) -> bool:
        """Whether Longshore hosts the repository."""
        return self.repository_url is None


class PublishState(StrEnum):
    """How far a version's publishing is."""

    NO = "no"
    """Never asked for, or given back by a publish that failed."""
    PENDING = "pending"
    """Asked for: the semantic version is reserved, the build still runs."""
    PUBLISHED = "published"
    """Callable."""


class Version(Base):
    """An algorithm at a commit: what is built, pushed and called."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("algorithm_id", "git_hash"),
        UniqueConstraint("algorithm_id", "semantic_version"),
    )

    seq: Mapped[Sequence]
    id: Mapped[Id]
    algorithm_id: Mapped[Reference]
    git_hash: Mapped[str] = mapped_column(String(64))
    semantic_version: Mapped[str | None] = mapped_column(String(64))
    publish_state: Mapped[PublishState] = mapped_column(String(16), default=PublishState.NO)
    publish_job_id: Mapped[str | None] = mapped_column(String(36))
    published_at: Mapped[Millis | None]
    build_id: Mapped[str | None] = mapped_column(String(36))
    """The build that a publish bound this version to."""
    pinned_registry_id: Mapped[str | None] = mapped_column(String(36))
    """The one registry that it is pulled from, whatever was pushed later (shared.pulls)."""
    callability: Mapped[str] = mapped_column(String(16), default="private")
    release_notes: Mapped[str | None] = mapped_column(Text)
    sample_input: Mapped[str | None] = mapped_column(Text)
    sample_output: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]

    @property
    def published(self) -> bool:
        """Whether this version can be called by its semantic version."""
        return self.publish_state == PublishState.PUBLISHED


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
