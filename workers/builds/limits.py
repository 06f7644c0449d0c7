"""What a build may use, and until when.

What a build reports to, and what can end it before it is done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.cancellation import CancelToken
from shared.file_lock import poll_file_lock
from workers.builds.log import BuildLog
from workers.jobs.deadline import Deadline


@dataclass(frozen=True)
class BuildLimits:
    """What one build may use: memory in bytes, CPUs in cores, processes, wall time in seconds, log in bytes."""

    memory_bytes: int
    cpus: float
    pids: int
    seconds: float
    log_bytes: int


@dataclass(frozen=True)
class BuildWatch:
    """The log of one build, the stop that somebody may ask for, and the moment when its time is up."""

    log: BuildLog
    stop: CancelToken
    deadline: Deadline

    def check(self) -> None:
        """Raise if the build must end.

        Raises:
            Stopped: the stop was asked for.
            WorkError: the time is used up (invalid).
        """
        self.stop.check()
        self.deadline.check()

    @contextmanager
    def locked(self, directory: Path | None, key: str) -> Iterator[None]:
        """Hold the lock of `key` among the builds on this machine; without a directory there is no lock.

        Raises:
            WorkCancelledError, WorkError: as `check`, while another build holds the lock.
        """
        if directory is None:
            yield
            return
        with poll_file_lock(
            [directory / f"{key}.lock"],
            self.check,
            on_wait=lambda: self.log("Another build is making the same: waiting for it"),
        ):
            yield
