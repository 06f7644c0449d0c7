"""Maintain hosted repositories between pushes: remove leftovers, join packs, measure the disk space of owners.

One thread does it, for one repository at a time, so that an owner cannot start many collections at once.
"""

import os
import queue
import threading
import time
from functools import cache

import structlog
from sqlalchemy import select

from api.errors import ApiError, Code
from api.git.repositories import PACK_MEMORY_CONFIG, Repository
from shared.cancellation import CancelToken
from shared.db.engine import database
from shared.db.models import Algorithm
from shared.errors import WorkCancelledError
from shared.file_lock import try_file_lock
from shared.git.command import run_git
from shared.settings import settings
from shared.settings.serving import MEBIBYTE

MAX_LOOSE_REFS = 500
"""Number of loose references above which they are packed into one file."""
GC_TIMEOUT_SECONDS = 10 * 60
FULL_INTERVAL_SECONDS = 60 * 60
"""Minimum time between two full garbage collections of one repository."""
GC_CONFIG = (
    ("gc.autoDetach", "false"),
    ("gc.cruftPacks", "true"),
    ("gc.pruneExpire", "1.day.ago"),  # longer than any push
    *PACK_MEMORY_CONFIG,
)

log = structlog.get_logger(__name__)


class Upkeep:
    """The thread that maintains repositories, and their cached sizes."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._full_at: dict[str, float] = {}
        self._stop = CancelToken()
        self._lock = threading.Lock()
        self._queue = queue.SimpleQueue[tuple[Repository, bool]]()
        self._queued = set[str]()
        threading.Thread(target=self._run, name="upkeep", daemon=True).start()

    def after_push(self, repository: Repository, *, is_full: bool = False) -> None:
        """Queue a repository for maintenance; with `is_full`, remove all unreachable objects."""
        with self._lock:
            self._sizes.pop(repository.id, None)
            if repository.id in self._queued:
                return
            self._queued.add(repository.id)
        self._queue.put((repository, is_full))

    def stop(self) -> None:
        """End the maintenance in progress, because its git would outlive this process."""
        self._stop.cancel("shutdown")

    def size(self, repository: Repository) -> int:
        """Return the bytes that a repository took on disk after its last push."""
        with self._lock:
            known = self._sizes.get(repository.id)
        if not repository.exists:
            return 0
        if known is None:
            known = repository.disk_bytes()
            with self._lock:
                self._sizes[repository.id] = known
        return known

    def _run(self) -> None:
        while True:
            repository, is_full = self._queue.get()
            with self._lock:
                self._queued.discard(repository.id)
            try:
                if repository.exists:
                    self._clean(repository, is_full=is_full)
            except WorkCancelledError:
                return
            except Exception:  # the next push does it again
                log.exception("upkeep_failed", algorithm_id=repository.id)
            with self._lock:
                self._sizes.pop(repository.id, None)

    def _clean(self, repository: Repository, *, is_full: bool) -> None:
        with try_file_lock(repository.push_lock) as is_idle:
            if is_idle:
                repository.remove_interrupted_pushes()
        if repository.count_refs().loose > MAX_LOOSE_REFS:
            self._git(repository, "pack-refs", "--all")
        now = time.monotonic()
        is_full = is_full and now - self._full_at.get(repository.id, -FULL_INTERVAL_SECONDS) >= FULL_INTERVAL_SECONDS
        if is_full:
            self._full_at[repository.id] = now
        self._git(repository, "gc", "--quiet", *([] if is_full else ["--auto"]))

    def _git(self, repository: Repository, *args: str) -> None:
        result = run_git(args, git_dir=repository.path, config=GC_CONFIG, timeout=GC_TIMEOUT_SECONDS, stop=self._stop)
        if not result.ok:
            log.warning("git_upkeep_failed", algorithm_id=repository.id, command=args[0], errors=result.errors)


def check_quota(algorithm_id: str) -> None:
    """Check that the owner of an algorithm has disk space left for a push to its repository.

    The pushes in progress are not counted: each can add as much as one push may have.

    Raises:
        ApiError: the repositories of the owner take too much (413).
    """
    limit = settings().git_owner_max_bytes
    if not limit:
        return
    owner = select(Algorithm.owner).where(Algorithm.id == algorithm_id).scalar_subquery()
    hosted = select(Algorithm.id, Algorithm.owner).where(
        Algorithm.owner == owner, Algorithm.repository_url.is_(None), Algorithm.deleted_at.is_(None)
    )
    with database().reading() as session:
        rows = session.execute(hosted).all()
    used = sum(upkeep().size(Repository(row.id)) for row in rows)
    if used > limit:
        upkeep().after_push(Repository(algorithm_id), is_full=True)  # may free some
        raise ApiError(
            413,
            Code.INVALID_REQUEST,
            f"The repositories of {rows[0].owner} take {used // MEBIBYTE:,} MiB of {limit // MEBIBYTE:,} MiB "
            "(LONGSHORE_GIT_OWNER_MAX_BYTES). Delete algorithms that are not needed, or ask the operator for more.",
        )


def upkeep() -> Upkeep:
    return _upkeep_of(os.getpid())


@cache
def _upkeep_of(_pid: int) -> Upkeep:
    return Upkeep()
