"""Tables of algorithms, their versions and builds, and the pushes that external repositories announced."""

from enum import StrEnum

from sqlalchemy import BigInteger, Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import Base, CreatedAt, Document, IdentifiedBase, Millis, PlainText, Reference


class Algorithm(IdentifiedBase):
    """A named git repository of source. A deleted algorithm keeps its row; its name can be used again."""

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

    owner: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    image_path: Mapped[str] = mapped_column(String(160))
    """OWNER/NAME in the form that image references allow."""
    details: Mapped[Document]
    settings: Mapped[Document]
    sample_input: Mapped[str | None] = mapped_column(Text)
    repository_url: Mapped[str | None] = mapped_column(String(512))
    """URL of an external repository; None: Longshore hosts it."""
    source_credentials: Mapped[str | None] = mapped_column(Text)
    """Encrypted username and password of a private external repository."""
    scm_id: Mapped[str | None] = mapped_column(String(64))
    """The configured source code management system of an external repository; None: none was named."""
    webhook_secret: Mapped[str | None] = mapped_column(Text)
    """Encrypted secret of the webhooks that its external repository sends; None: none was made."""
    compiled_head: Mapped[str | None] = mapped_column(String(64))
    """The last head of the hosted default branch that was processed. A different head was pushed before a crash."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    deleted_at: Mapped[Millis | None]

    @property
    def path(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def hosted(self) -> bool:
        return self.repository_url is None


class PublishState(StrEnum):
    """The states of publishing a version."""

    NO = "no"
    """Not requested, or released by a failed publish."""
    PENDING = "pending"
    """Requested: the semantic version is reserved, the build is not done yet."""
    PUBLISHED = "published"
    """Can be called by its semantic version."""


class Version(IdentifiedBase):
    """An algorithm at a commit. Versions are built, pushed and called."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("algorithm_id", "git_hash"),
        UniqueConstraint("algorithm_id", "semantic_version"),
    )

    algorithm_id: Mapped[Reference]
    git_hash: Mapped[str] = mapped_column(String(64))
    semantic_version: Mapped[str | None] = mapped_column(String(64))
    publish_state: Mapped[PublishState] = mapped_column(String(16), default=PublishState.NO)
    publish_job_id: Mapped[str | None] = mapped_column(String(36))
    published_at: Mapped[Millis | None]
    build_id: Mapped[str | None] = mapped_column(String(36))
    """The build that this version was published with."""
    pinned_registry_id: Mapped[str | None] = mapped_column(String(36))
    """The only registry to pull from, whatever was pushed later (`shared.pulls`)."""
    callability: Mapped[str] = mapped_column(String(16), default="private")
    release_notes: Mapped[str | None] = mapped_column(Text)
    sample_input: Mapped[str | None] = mapped_column(Text)
    sample_output: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]

    @property
    def published(self) -> bool:
        return self.publish_state == PublishState.PUBLISHED


class BuildStatus(StrEnum):
    """The states of a build. The API shows `queued` as `in-progress` and `cancelled` as `failed`."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (BuildStatus.SUCCEEDED, BuildStatus.FAILED, BuildStatus.CANCELLED)


class LoadCheckState(StrEnum):
    """The results of importing the algorithm in its image after a build."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It is off, or there was no engine to run the image."""


class Build(IdentifiedBase):
    """One build of the image of one version."""

    __tablename__ = "builds"
    __table_args__ = (
        Index("ix_builds_algorithm_seq", "algorithm_id", "seq"),
        Index(
            "ix_builds_unchecked",
            "finished_at",
            sqlite_where=text("load_check IS NULL AND status = 'succeeded'"),
            postgresql_where=text("load_check IS NULL AND status = 'succeeded'"),
        ),
    )

    algorithm_id: Mapped[str] = mapped_column(String(36))
    version_id: Mapped[Reference]
    job_id: Mapped[str] = mapped_column(String(36))
    commit_sha: Mapped[str] = mapped_column(String(64))
    status: Mapped[BuildStatus] = mapped_column(String(16), default=BuildStatus.QUEUED)
    log: Mapped[str] = mapped_column(PlainText, default="", deferred=True)
    message: Mapped[str | None] = mapped_column(PlainText)
    image_id: Mapped[str | None] = mapped_column(String(80))
    """The image id of the engine (sha256:…): the digest of the image configuration."""
    manifest_digest: Mapped[str | None] = mapped_column(String(80))
    """Digest of the manifest in the image store; None for images that were built before there was a store."""
    image_bytes: Mapped[int | None] = mapped_column(BigInteger)
    refreshes_environment: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Resolve the requirements again even if an environment for them exists."""
    environment_key: Mapped[str | None] = mapped_column(String(80))
    load_check: Mapped[LoadCheckState | None] = mapped_column(String(16))
    """Whether the image's algorithm could be imported; None: not known yet."""
    load_check_traceback: Mapped[str | None] = mapped_column(PlainText)
    created_at: Mapped[CreatedAt]
    started_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]


class SourceDelivery(Base):
    """A webhook that an external repository sent. A repeated delivery is recognized by its row."""

    __tablename__ = "source_deliveries"
    __table_args__ = (UniqueConstraint("algorithm_id", "delivery"),)

    algorithm_id: Mapped[str] = mapped_column(String(36))
    delivery: Mapped[str] = mapped_column(String(64))
    """SHA-256 of what identifies the delivery."""
    created_at: Mapped[CreatedAt] = mapped_column(index=True)
