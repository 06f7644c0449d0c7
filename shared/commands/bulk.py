"""The result of a command that enqueues many pushes, in steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from shared.db.models import Job
from shared.jobs.dispatch import JobMessage

MAX_AT_ONCE = 1000
"""Pushes that one call looks at; a caller with more sends another one."""
MAX_IN_TRANSACTION = 100
"""Pushes enqueued in one transaction, which locks their registries: other pushes to these wait meanwhile."""

Record = Callable[[Session, Sequence[Job]], None]
"""Called in each transaction that enqueued pushes, with their jobs: what it writes is committed with them."""


@dataclass
class Skipped:
    """A push that was not enqueued, and why."""

    algorithm: str
    git_hash: str
    registry_id: str
    reason: str


@dataclass
class BulkResult:
    """What a bulk command enqueued and skipped."""

    enqueued: int = 0
    """The number of pushes that were enqueued, or would be without a dry run."""
    jobs: list[str] = field(default_factory=list)
    """The ids of the new jobs; the first is the parent of the others. Empty after a dry run."""
    skipped: list[Skipped] = field(default_factory=list)
    messages: list[JobMessage] = field(default_factory=list)
    last: int | None = None
    """The `seq` of the last row that was looked at; None: there are no more."""
