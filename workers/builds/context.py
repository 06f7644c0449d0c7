"""The limits of a build, and the log, cancellation and deadline that all of its steps share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.cancellation import CancelToken
from shared.file_lock import poll_file_lock
from workers.builds.log import BuildLog
from workers.docker.deadline import Deadline


@dataclass(frozen=True)
class BuildLimits:
    """Limits of one build: memory in bytes, CPUs in cores, processes, wall time in seconds, log in bytes."""

    memory_bytes: int
    cpus: float
    pids: int
    seconds: float
    log_bytes: int


@dataclass(frozen=True)
class BuildContext:
    """The log of one build, its cancel token, its deadline, and the locks that builds on this machine share."""

    log: BuildLog
    stop: CancelToken
    deadline: Deadline
    lock_directory: Path

    def check(self) -> None:
        """Raise if the build must end.

        Raises:
            WorkCancelledError: the build was cancelled.
            WorkError: its time is used up (invalid).
        """
        self.stop.check()
        self.deadline.check()

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold the lock of `key` among the builds on this machine. Raises as `check` while another build holds it."""
        with poll_file_lock(
            [self.lock_directory / f"{key}.lock"],
            self.check,
            on_wait=lambda: self.log("Another build is making the same: waiting for it"),
        ):
            yield
