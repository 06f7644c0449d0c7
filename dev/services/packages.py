"""Install the programs that the services need, as root on Debian and Ubuntu.

`python3 -m dev.services.packages demo` (or `test`, `test-long`) installs the programs for `make demo` (or `make test`,
`make test-long`). It uses only the standard library, because it runs before the virtual environment exists.
"""

import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.services.processes import ServiceFailedError, ending_on_sigterm, find_program, say

_VENV = "venv"  # a module of Python, but a package of its own on Debian
DEMO_PROGRAMS = {
    _VENV: "python3-venv",
    "git": "git",
    "curl": "curl",
    "redis-server": "redis-server",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
}
_CLOCK = "libfaketime"  # a library, not a program
TEST_PROGRAMS = {**DEMO_PROGRAMS, "postgres": "postgresql", "skopeo": "skopeo", _CLOCK: "libfaketime"}
LONG_TEST_PROGRAMS = {**TEST_PROGRAMS, "node": "nodejs", "npm": "npm"}
_PROGRAMS = {"demo": DEMO_PROGRAMS, "test": TEST_PROGRAMS, "test-long": LONG_TEST_PROGRAMS}
_ENGINE_PROGRAMS = {"dockerd": "docker.io"}
_BASE_IMAGE_PROGRAMS = {"mmdebstrap": "mmdebstrap"}

_POLICY = Path("/usr/sbin/policy-rc.d")
_CLUSTER_DROP_IN = Path("/etc/postgresql-common/createcluster.d/longshore-services.conf")


def postgres_programs() -> Path | None:
    """Return the directory of the newest installed PostgreSQL server (on Debian its programs are not on the PATH)."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    return max(versions, key=lambda path: float(path.parent.name), default=None)


def clock_library() -> Path | None:
    """Return the library that, when preloaded, shifts a process's clock by `FAKETIME`; None if it is not installed."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def missing_packages(programs: Mapping[str, str]) -> list[str]:
    """Return the packages (values) whose programs (keys) are not installed."""
    return sorted({package for program, package in programs.items() if not _is_installed(program)})


def ensure_programs(programs: Mapping[str, str]) -> None:
    """Install those of these programs (mapped to Debian packages) that are missing.

    The installation starts no service and creates no database cluster.

    Raises:
        ServiceFailedError: this is not root, or not a system with apt-get, or the installation failed; the message has
            the commands to run.
    """
    packages = missing_packages(programs)
    if not packages:
        return
    command = f"apt-get update && apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or find_program("apt-get") is None:
        raise ServiceFailedError(
            f"missing: {', '.join(packages)}. Run as root on Debian or Ubuntu: {command}\n"
            "(elsewhere: install the packages that bring these programs: "
            f"{', '.join(program for program in programs if not _is_installed(program))})"
        )
    say(f"installing {', '.join(packages)} (their services are not started)")
    with _services_not_started(), _no_cluster_created():
        _apt_get("update", command=command)
        _apt_get("install", "--yes", "--no-install-recommends", *packages, command=command)
    if still := missing_packages(programs):
        raise ServiceFailedError(f"apt-get installed {', '.join(packages)}, but {', '.join(still)} brought no program")


def _is_installed(program: str) -> bool:
    if program == "postgres":
        return postgres_programs() is not None
    if program == _CLOCK:
        return clock_library() is not None
    if program == _VENV:
        # On Debian ensurepip is not in Python's own package; without it venv installs no pip.
        importlib.invalidate_caches()
        return importlib.util.find_spec("ensurepip") is not None
    return find_program(program) is not None


def _apt_get(*arguments: str, command: str) -> None:
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
        raise ServiceFailedError(
            f"apt-get {arguments[0]} failed:\n{done.stdout[-3000:]}\nTo try it yourself: {command}"
        )


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Keep packages from starting services: policy-rc.d decides that, 101 means no (invoke-rc.d's policy interface)."""
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
def _no_cluster_created() -> Iterator[None]:
    """Keep the package of PostgreSQL from creating a database cluster, with a drop-in."""
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
        for parent in made:  # nearest first; a directory that the package owns now is not empty and stays
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()


def _has_engine() -> bool:
    # Without docker-py, because the virtual environment may not exist yet. Only use shows whether it responds.
    return "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").is_socket()


def needed_programs(purpose: str) -> dict[str, str]:
    """Return the programs for a purpose; those for an engine and a base image only if none is configured."""
    programs = dict(_PROGRAMS[purpose])
    if purpose != "demo" or not _has_engine():
        programs |= _ENGINE_PROGRAMS
    if not os.environ.get("LONGSHORE_BASE_IMAGE"):
        programs |= _BASE_IMAGE_PROGRAMS
    return programs


def main(arguments: Sequence[str]) -> int:
    """Install the programs for a purpose; return 0 if all are installed, 1 if not, 2 for wrong usage."""
    if len(arguments) != 1 or arguments[0] not in _PROGRAMS:
        say(f"usage: python3 -m dev.services.packages {'|'.join(_PROGRAMS)}")
        return 2
    try:
        with ending_on_sigterm():
            ensure_programs(needed_programs(arguments[0]))
    except ServiceFailedError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
