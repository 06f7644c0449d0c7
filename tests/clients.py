"""Virtual environments with the published clients, made once and shared by every suite and every test process."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "clients"


def published_client_python() -> Path:
    """The Python of an environment with `algorithmia` 2.0.5, which brings the development kit along."""
    return _python_with("algorithmia", "algorithmia==2.0.5")


def generated_client_python() -> Path:
    """The Python of an environment with `algorithmia-api-client` 1.5.5, the first with a registries part."""
    return _python_with("algorithmia-api-client", "algorithmia-api-client==1.5.5")


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a file lock: at most one test process is in such a block at a time."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _python_with(name: str, requirement: str) -> Path:
    directory = CACHE / name
    python, made = directory / "bin" / "python", directory / "made"
    CACHE.mkdir(parents=True, exist_ok=True)
    with alone(CACHE / f"{name}.lock"):
        if not (made.exists() and made.read_text() == requirement):
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
            made.write_text(requirement)
    return python
