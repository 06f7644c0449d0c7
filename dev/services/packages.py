"""Programs that the parts need, installed where that can be done: as root on Debian and Ubuntu.

`python3 -m dev.services.packages demo` (or `test`) makes sure of what `make demo` (or `make test`) needs. Standard library
only: it runs before the virtual environment exists.
"""

import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.services.processes import PartFailedError, ending_on_sigterm, find_program, say

_VENV = "venv"  # a module of the Python that runs this, but a package to install all the same
DEMO_PROGRAMS = {
    _VENV: "python3-venv",
    "git": "git",
    "curl": "curl",
    "redis-server": "redis-server",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
}
_CLOCK = "libfaketime"  # a library that shifts a process's clock, not a program
TEST_PROGRAMS = {**DEMO_PROGRAMS, "postgres": "postgresql", "skopeo": "skopeo", _CLOCK: "libfaketime"}
_ENGINE_PROGRAMS = {"dockerd": "docker.io"}
_BASE_IMAGE_PROGRAMS = {"mmdebstrap": "mmdebstrap"}

_POLICY = Path("/usr/sbin/policy-rc.d")
_CLUSTER_DROP_IN = Path("/etc/postgresql-common/createcluster.d/longshore-parts.conf")


def postgres_programs() -> Path | None:
    """The directory of PostgreSQL's newest installed server programs (Debian keeps them off the PATH)."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    return max(versions, key=lambda path: float(path.parent.name), default=None)


def clock_library() -> Path | None:
    """The library that, preloaded, shifts a process's clock by what `FAKETIME` says; None where it is not installed."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def missing_packages(programs: Mapping[str, str]) -> list[str]:
    """The packages (values) whose program (key) is not installed here."""
    return sorted({package for program, package in programs.items() if not _is_installed(program)})


def ensure_programs(programs: Mapping[str, str]) -> None:
    """Install what is missing of these programs (program to Debian package), saying so.

    No service is started and no database cluster is made by the installation.

    Raises:
        PartFailedError: this is not root, or not a system with apt-get, or the installation failed; the text gives
            the commands to run.
    """
    packages = missing_packages(programs)
    if not packages:
        return
    by_hand = f"apt-get update && apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or find_program("apt-get") is None:
        raise PartFailedError(
            f"missing: {', '.join(packages)}. Run as root on Debian or Ubuntu: {by_hand}\n"
            "(elsewhere: install the packages that bring these programs: "
            f"{', '.join(program for program in programs if not _is_installed(program))})"
        )
    say(f"installing {', '.join(packages)} (their services are not started)")
    with _services_not_started(), _no_cluster_made():
        _apt_get("update", by_hand=by_hand)
        _apt_get("install", "--yes", "--no-install-recommends", *packages, by_hand=by_hand)
    if still := missing_packages(programs):
        raise PartFailedError(f"apt-get installed {', '.join(packages)}, but {', '.join(still)} brought no program")


def _is_installed(program: str) -> bool:
    if program == "postgres":
        return postgres_programs() is not None
    if program == _CLOCK:
        return clock_library() is not None
    if program == _VENV:
        # Debian takes ensurepip out of Python's own package; without it venv makes no pip.
        importlib.invalidate_caches()
        return importlib.util.find_spec("ensurepip") is not None
    return find_program(program) is not None


def _apt_get(*arguments: str, by_hand: str) -> None:
    quiet = ["-qq", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    done = subprocess.run(
        ["apt-get", *quiet, *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise PartFailedError(f"apt-get {arguments[0]} failed:\n{done.stdout[-3000:]}\nTo try by hand: {by_hand}")


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Debian asks policy-rc.d before a package starts its service; 101 means no (invoke-rc.d's policy interface)."""
    if _POLICY.exists():
        yield  # the machine's own policy stays
        return
    try:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(_POLICY.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


@contextmanager
def _no_cluster_made() -> Iterator[None]:
    """PostgreSQL's package makes a database cluster when first installed, unless a drop-in says no."""
    if _CLUSTER_DROP_IN.exists():
        yield
        return
    made = [parent for parent in _CLUSTER_DROP_IN.parents if not parent.exists()]
    try:
        _CLUSTER_DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        _CLUSTER_DROP_IN.write_text("create_main_cluster = false\n")
        yield
    finally:
        _CLUSTER_DROP_IN.unlink(missing_ok=True)
        for parent in made:  # nearest first; a directory that the package now owns is not empty and stays
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()


def _engine_answers() -> bool:
    # Not docker-py: the virtual environment may not exist yet. Whether it really answers is found out at use.
    return "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").is_socket()


def needed_programs(purpose: str) -> dict[str, str]:
    """What `demo` or `test` needs on this machine: an engine and a base image only where none is given."""
    programs = dict(TEST_PROGRAMS if purpose == "test" else DEMO_PROGRAMS)
    if purpose == "test" or not _engine_answers():
        programs |= _ENGINE_PROGRAMS
    if not os.environ.get("LONGSHORE_BASE_IMAGE"):
        programs |= _BASE_IMAGE_PROGRAMS
    return programs


def main(arguments: Sequence[str]) -> int:
    """Install what `demo` or `test` lacks; 0 when everything is there, 1 with a sentence when not, 2 for bad usage."""
    if len(arguments) != 1 or arguments[0] not in {"demo", "test"}:
        say("usage: python3 -m dev.services.packages demo|test")
        return 2
    try:
        with ending_on_sigterm():
            ensure_programs(needed_programs(arguments[0]))
    except PartFailedError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
