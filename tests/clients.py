"""Virtual environments with the published clients, made once and shared by every suite and every test process."""

import shutil
import subprocess
import sys
from pathlib import Path

from shared.file_lock import file_lock

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "clients"


def published_client_python() -> Path:
    """The Python of an environment with `algorithmia` 2.0.5, which brings the development kit along."""
    return _python_with("algorithmia", "algorithmia==2.0.5")


def generated_client_python() -> Path:
    """The Python of an environment with `algorithmia-api-client` 1.5.5, the first with a registries part."""
    return _python_with("algorithmia-api-client", "algorithmia-api-client==1.5.5")


def _python_with(name: str, requirement: str) -> Path:
    directory = CACHE / name
    python, made = directory / "bin" / "python", directory / "made"
    CACHE.mkdir(parents=True, exist_ok=True)
    with file_lock(CACHE / f"{name}.lock"):
        if not (made.exists() and made.read_text() == requirement):
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
            made.write_text(requirement)
    return python
