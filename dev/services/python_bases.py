"""Make base images with other versions of Python than the machine's own, for builds of old sources.

A version that a release of Debian has comes from the archive of that release; any other one from an interpreter on this
machine, which is added to the base image of the machine's own release.
"""

import os
import shutil
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

import docker

from dev.services.base_image import (
    DEBIAN_PYTHONS,
    cache_directory,
    import_tarball,
    is_present,
    python_base_tarball,
)
from dev.services.processes import ServiceFailedError

_RECIPE = 1  # to be raised when the content of the tarball changes
_UNUSED = ("__pycache__", "site-packages", "test", "tests", "idlelib", "idle_test", "turtledemo", "lib2to3")


def ensure_python_version(docker_host: str, version: str) -> str:
    """Make sure that the engine has a base image with this version of Python, such as `3.8`. Return its name.

    `LONGSHORE_DEV_PYTHONS` is a directory with interpreters, `3.8.18/bin/python3.8` for example; pyenv's by default.

    Raises:
        ServiceFailedError: there is neither such a release of Debian nor such an interpreter, or no image can be made.
    """
    name = f"longshore-base:python{version}"
    with closing(docker.DockerClient(base_url=docker_host, timeout=300)) as client:
        if not is_present(client, name):
            import_tarball(client, _tarball(version), name)
    return name


def can_make(version: str) -> bool:
    """Return whether `ensure_python_version` knows where to get this version from."""
    return version in DEBIAN_PYTHONS or find_interpreter(version) is not None


def find_interpreter(version: str) -> Path | None:
    """Return the directory of an interpreter on this machine, the newest of its version."""
    named = os.environ.get("LONGSHORE_DEV_PYTHONS")
    directory = Path(named) if named else Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [path for path in directory.glob(f"{version}.*") if (path / "bin" / f"python{version}").is_file()]
    return max(found, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()], default=None)


def _tarball(version: str) -> Path:
    if version in DEBIAN_PYTHONS:
        return python_base_tarball(DEBIAN_PYTHONS[version])
    interpreter = find_interpreter(version)
    if interpreter is None:
        raise ServiceFailedError(
            f"neither a release of Debian nor an interpreter on this machine has Python {version}; install one with "
            "pyenv, or name a directory of interpreters in LONGSHORE_DEV_PYTHONS"
        )
    own = python_base_tarball()
    cached = cache_directory() / f"{own.stem}-python{interpreter.name}-v{_RECIPE}.tar"
    if not cached.exists():
        with tempfile.TemporaryDirectory(prefix="base-image-", dir=cached.parent) as work:
            made = Path(work) / "base.tar"
            shutil.copyfile(own, made)
            _add_interpreter(made, interpreter, version)
            made.replace(cached)
    return cached


def _add_interpreter(tarball: Path, interpreter: Path, version: str) -> None:
    """Add an interpreter at /usr/local, before the release's own on the path. It finds its library by its own place."""
    with tarfile.open(tarball, "a") as archive:
        for name in (f"python{version}", "python3"):
            archive.add(interpreter / "bin" / f"python{version}", f"./usr/local/bin/{name}", filter=_cleaned)
        library = interpreter / "lib"
        archive.add(library / f"python{version}", f"./usr/local/lib/python{version}", filter=_cleaned)
        for shared in sorted(library.glob(f"libpython{version}*.so.*")):
            # The loader looks here without a cache; the interpreter names a path of this machine.
            archive.add(shared, f"./usr/lib/{shared.name}", filter=_cleaned)


def _cleaned(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(member.name)
    if path.name in _UNUSED or path.name.startswith("config-") or path.suffix == ".a":
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
