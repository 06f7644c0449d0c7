"""Environments with the published clients, created once and shared by all test processes.

Each client has an environment of its own, with all its companions pinned: it is tested as it was published.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.file_lock import file_lock

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "clients"
_GENERATED_COMPANIONS = (
    "certifi==2026.10.19.post1",
    "python-dateutil==4.0.0",
    "six==1.17.0",
    "tzdata==2026.6",
    "urllib3==2.8.0",
)
_COMPANIONS = (*_GENERATED_COMPANIONS, "charset-normalizer==3.5.3", "idna==3.20", "requests==2.34.2")
_COMMAND_LINE_COMPANIONS = (
    *_COMPANIONS,
    "algorithmia-api-client==1.5.1",
    "argparse==1.4.0",
    "enum-compat==0.0.3",
    "toml==0.10.2",
)
_YAML = ("pyaml==21.10.1", "PyYAML==6.0.4")
_PYTHON_CLIENTS = {
    "1.2.1": (*_COMPANIONS, "algorithmia-api-client==1.1.0", "enum34==1.1.10"),
    "1.13.1": (*_COMMAND_LINE_COMPANIONS, "algorithmia-adk==1.0.4"),
    "1.17.0": (*_COMMAND_LINE_COMPANIONS, *_YAML, "algorithmia-adk==1.2.4"),
    "2.0.5": (*_COMMAND_LINE_COMPANIONS, *_YAML, "algorithmia-adk==1.2.4"),
}
PYTHON_CLIENTS = tuple(_PYTHON_CLIENTS)
"""The versions of `algorithmia`. The oldest imports only beside an `algorithmia-api-client` of its time."""
COMMAND_LINES = PYTHON_CLIENTS[1:]
"""Those with the command `algo`."""


def published_client_python(version: str = "2.0.5") -> Path:
    """Return the Python of an environment with a version of `algorithmia`."""
    return _python_with(f"algorithmia-{version}", (f"algorithmia=={version}", *_PYTHON_CLIENTS[version]))


def generated_client_python() -> Path:
    """Return the Python of an environment with `algorithmia-api-client` 1.5.5, the first with registries."""
    return _python_with("algorithmia-api-client", ("algorithmia-api-client==1.5.5", *_GENERATED_COMPANIONS))


def node_client_modules() -> Path:
    """Return a `node_modules` with npm's `algorithmia` 0.3.10, which depends on nothing."""

    def install(directory: Path) -> None:
        # npm runs in the directory, which `--prefix` alone does not make the project.
        (directory / "package.json").write_text("{}")
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run([*command, "algorithmia@0.3.10"], cwd=directory, check=True, capture_output=True)

    return _environment("node-algorithmia", "algorithmia@0.3.10", install) / "node_modules"


def _python_with(name: str, requirements: Sequence[str]) -> Path:
    def install(directory: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        python = directory / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)

    return _environment(name, "\n".join(requirements), install) / "bin" / "python"


def _environment(name: str, requirements: str, install: Callable[[Path], None]) -> Path:
    """Return the directory of an environment with these requirements, installed if it has others or is incomplete."""
    directory = CACHE / name
    marker = directory / "requirements"
    CACHE.mkdir(parents=True, exist_ok=True)
    with file_lock(CACHE / f"{name}.lock"):
        if not (marker.exists() and marker.read_text() == requirements):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            install(directory)
            marker.write_text(requirements)
    return directory
