"""Virtual environments with the published clients, created once and shared by all test processes."""

import shutil
import subprocess
import sys
from pathlib import Path

from shared.file_lock import file_lock

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "clients"


def published_client_python() -> Path:
    """Return the Python of an environment with `algorithmia` 2.0.5, which includes the development kit."""
    return _python_with("algorithmia", "algorithmia==2.0.5")


def generated_client_python() -> Path:
    """Return the Python of an environment with `algorithmia-api-client` 1.5.5, the first with registries."""
    return _python_with("algorithmia-api-client", "algorithmia-api-client==1.5.5")


def older_client_python(version: str) -> Path:
    """Return the Python of an environment with an older `algorithmia`: from before the kit, or with its first."""
    requirements = {
        "1.2.1": ("algorithmia==1.2.1", "algorithmia-api-client==1.1.0"),
        "1.13.1": ("algorithmia==1.13.1",),
    }
    return _python_with(f"algorithmia-{version}", *requirements[version])


def _python_with(name: str, *requirements: str) -> Path:
    requirement = " ".join(requirements)
    directory = CACHE / name
    python, marker = directory / "bin" / "python", directory / "requirement"
    CACHE.mkdir(parents=True, exist_ok=True)
    with file_lock(CACHE / f"{name}.lock"):
        if not (marker.exists() and marker.read_text() == requirement):
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
            marker.write_text(requirement)
    return python
