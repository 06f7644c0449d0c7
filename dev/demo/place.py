"""The directory of the demo: one demo at a time runs in it, and it is gone with the demo unless something failed."""

import os
import select
import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dev.services.place import remove_tree
from dev.services.processes import PartFailedError, signals_deferred
from shared.file_lock import try_lock_file

_CHECKOUT = Path(__file__).resolve().parent.parent
_LOCK = "lock"


def demo_directory() -> Path:
    """`LONGSHORE_DEMO_DIR`, else .longshore-demo in the checkout."""
    return Path(os.environ.get("LONGSHORE_DEMO_DIR") or _CHECKOUT / ".longshore-demo").absolute()


class Place:
    """The directory while a demo runs in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keep_logs = False
        """Whether clearing leaves the logs: where something failed."""

    @property
    def variables_file(self) -> Path:
        """Where the variables are."""
        return self.directory / "env"

    def write_variables(self, variables: Mapping[str, str]) -> None:
        """Write variables as a file that a shell can read; it holds secrets, so it is its owner's alone."""
        with os.fdopen(os.open(self.variables_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())

    def clear(self) -> None:
        """Remove everything, but the lock and, where wanted, the logs."""
        if self.keep_logs:
            for log in self.directory.glob("*/*.log"):
                log.rename(self.directory / log.name)
        for entry in self.directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            elif entry.name != _LOCK and not (self.keep_logs and entry.suffix == ".log"):
                entry.unlink()


@contextmanager
def occupied(directory: Path) -> Iterator[Place]:
    """The directory for the length of the block, empty at the beginning.

    Raises:
        PartFailedError: another demo runs in it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    place = Place(directory)
    with (directory / _LOCK).open("a+") as lock:
        if not try_lock_file(lock):
            raise PartFailedError(f"a demo has just begun in {directory}")
        place.clear()
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield place
        except Exception:
            place.keep_logs = True
            raise
        finally:
            with signals_deferred():
                place.clear()
                (directory / _LOCK).unlink()
                if not any(directory.iterdir()):
                    directory.rmdir()


def running_demo(directory: Path) -> int | None:
    """The process id of the demo that runs in the directory; None where there is none."""
    try:
        with (directory / _LOCK).open() as lock:
            return None if try_lock_file(lock) else int(lock.read())
    except FileNotFoundError:
        return None


def end(pid: int) -> None:
    """Ask a demo to stop all that it started, and wait until it did."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        select.select([process], [], [])  # readable when it has ended (pidfd_open(2))
    finally:
        os.close(process)
