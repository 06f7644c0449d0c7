"""The directory of the demo: locked by one demo, and removed at its end, except for the logs of a failure."""

import os
import select
import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dev.services.processes import ServiceFailedError, signals_deferred
from dev.services.workdir import remove_tree
from shared.file_lock import try_lock_file

_CHECKOUT = Path(__file__).resolve().parents[2]
_LOCK = "lock"


def demo_directory() -> Path:
    """Return `LONGSHORE_DEMO_DIR`, by default .longshore-demo in the checkout."""
    return Path(os.environ.get("LONGSHORE_DEMO_DIR") or _CHECKOUT / ".longshore-demo").absolute()


class Workdir:
    """The directory while a demo runs in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keep_logs = False
        """Whether `clear` keeps the logs, after a failure."""

    @property
    def variables_file(self) -> Path:
        """The file with the variables of the demo's commands."""
        return self.directory / "env"

    def write_variables(self, variables: Mapping[str, str]) -> None:
        """Write variables to a file for a shell. Only its owner may read it, because it has secrets."""
        with os.fdopen(os.open(self.variables_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())

    def clear(self) -> None:
        """Remove everything except the lock, and the logs if they are to be kept."""
        if self.keep_logs:
            for log in self.directory.glob("*/*.log"):
                log.rename(self.directory / log.name)
        for entry in self.directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            elif entry.name != _LOCK and not (self.keep_logs and entry.suffix == ".log"):
                entry.unlink()


@contextmanager
def locked_workdir(directory: Path) -> Iterator[Workdir]:
    """Lock the directory during the block, and clear it before and after.

    Raises:
        ServiceFailedError: another demo runs in it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    workdir = Workdir(directory)
    with (directory / _LOCK).open("a+") as lock:
        if not try_lock_file(lock):
            raise ServiceFailedError(f"another demo has started in {directory}; stop it with `make demo-stop`")
        workdir.clear()
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield workdir
        except Exception:
            workdir.keep_logs = True
            raise
        finally:
            with signals_deferred():
                workdir.clear()
                (directory / _LOCK).unlink()
                if not any(directory.iterdir()):
                    directory.rmdir()


def running_demo(directory: Path) -> int | None:
    """Return the process id of the demo that runs in the directory."""
    try:
        with (directory / _LOCK).open() as lock:
            return None if try_lock_file(lock) else int(lock.read())
    except FileNotFoundError:
        return None


def stop_demo(pid: int) -> None:
    """Have a demo stop everything that it started, and wait for its end."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        select.select([process], [], [])  # readable when it has ended (pidfd_open(2))
    finally:
        os.close(process)
