"""End a build that uses too much of the engine's disk.

Few engines have quotas for containers (overlay2 on xfs with pquota), so the worker measures about every second. The
engine returns the size of the container's layer. A step in the container also counts files, and deleted files that are
still open. It runs as root, so code of the build can neither stop it nor write to its output. But a build can use up
the processes or the memory that the step needs, so a build is ended too if it cannot be measured repeatedly.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources

from shared.cancellation import Deadline
from shared.errors import ErrorClass, LongshoreError, WorkError
from workers.builds.context import BuildContext, BuildLimits
from workers.builds.environment.command_output import STDOUT, read_output
from workers.docker.connection import interruptible
from workers.docker.images import remove_container

POLL_INTERVAL_SECONDS = 1.0
MAX_SHARE_OF_TIME = 0.2
"""Maximum share of the time that is spent measuring, because many files take long and slow the build down."""
MEASURE_TIMEOUT_SECONDS = 30.0
MAX_FAILURES = 5
"""Consecutive measurements that may fail after one has succeeded: a build could prevent them."""
_SCRIPT = resources.files("workers.builds.environment") / "steps" / "measure_disk.py"


class DiskWatch:
    """Watches what one user has on the disk of one container."""

    def __init__(self, container_id: str, user: int, limits: BuildLimits, context: BuildContext) -> None:
        self._container_id = container_id
        self._user = user
        self._limits = limits
        self._context = context
        self._ended = threading.Event()
        self._has_measured = False
        self._failures = 0
        self.violation = ""
        """Why the container was removed, as a sentence; empty if it was not."""

    def check(self) -> None:
        """Raise the violation, if there is one.

        Raises:
            WorkError: a limit was exceeded (invalid).
        """
        if self.violation:
            raise WorkError(ErrorClass.INVALID, self.violation)

    def run(self) -> None:
        """Measure until `end`, or until a limit is exceeded."""
        pause = 0.0
        while not self._ended.wait(pause):
            began = time.monotonic()
            with suppress(LongshoreError):  # the engine does not respond, or the build ends; reported elsewhere
                self.violation = self._violation()
            if self.violation:
                with suppress(LongshoreError):
                    remove_container(self._container_id)
                return
            spent = 0.0 if self._failures else time.monotonic() - began  # what is not measured may grow
            pause = max(POLL_INTERVAL_SECONDS, spent * (1 / MAX_SHARE_OF_TIME - 1))

    def end(self) -> None:
        self._ended.set()

    def _violation(self) -> str:
        layer_size = self._layer_size()
        used, files = layer_size or 0, 0
        if used <= self._limits.disk_bytes:
            measured = self._measured()
            if measured is not None:
                self._has_measured, self._failures = True, 0
                used, files = max(used, measured[0]), measured[1]
            elif layer_size is not None and self._has_measured:
                # Otherwise the engine does not respond, or cannot run the step.
                self._failures += 1
            if self._failures > MAX_FAILURES:
                return "the build was ended, because its disk space could no longer be measured"
            if files < 0:
                return "the build was ended: it has files that cannot be counted, for example with too long paths"
        if used > self._limits.disk_bytes:
            return (
                f"the build was ended: it had more than {self._limits.disk_bytes} bytes on the engine's disk, "
                "the limit of LONGSHORE_BUILD_MAX_BYTES"
            )
        if files > self._limits.files:
            return (
                f"the build was ended: it had more than {self._limits.files} files on the engine's disk, "
                "the limit of LONGSHORE_BUILD_MAX_FILES"
            )
        return ""

    def _layer_size(self) -> int | None:
        """Return the bytes of files in the container's layer; None if the engine cannot say."""
        try:
            with interruptible(self._context.stop, self._context.deadline) as client:
                found = client.containers(all=True, size=True, filters={"id": self._container_id})
        except WorkError:
            return None
        return int(found[0].get("SizeRw") or 0) if found else 0

    def _measured(self) -> tuple[int, int] | None:
        command = ["python3", "-I", "-S", "-B", "-c", _SCRIPT.read_text("utf-8"), str(self._user)]
        try:
            with interruptible(self._context.stop, Deadline(MEASURE_TIMEOUT_SECONDS)) as client:
                step = client.exec_create(self._container_id, command, user="0:0", workdir="/")["Id"]
                client.exec_start(step, stream=True)
                printed = b"".join(read_output(client.last_response, only=STDOUT)).decode("ascii", "replace")
        except WorkError:
            return None
        numbers = re.fullmatch(r"(-?[0-9]{1,20}) (-?[0-9]{1,20})\n", printed)
        return (int(numbers[1]), int(numbers[2])) if numbers else None


@contextmanager
def disk_watch(container_id: str, user: int, limits: BuildLimits, context: BuildContext) -> Iterator[DiskWatch]:
    """Watch the files of a user in a container during the block. A violation is raised in place of the error it caused.

    Raises:
        WorkError: a limit was exceeded (invalid).
    """
    watch = DiskWatch(container_id, user, limits, context)
    thread = threading.Thread(target=watch.run, name="disk-watch", daemon=True)
    thread.start()
    try:
        yield watch
    except WorkError:
        watch.check()
        raise
    finally:
        watch.end()
        thread.join()
    watch.check()
