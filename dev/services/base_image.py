"""A Python base image made from the system's own package archive, for where no image can be pulled."""

import json
import os
import platform
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

from dev.services.processes import PartFailedError, find_program, run_to_end, say

DEFAULT_NAME = "longshore-base:python3"

_RECIPE = 1  # raise it when what goes into the tarball changes
_PACKAGES = "python3,python3-venv,ca-certificates"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
_MERGED_USR_HOOK = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
_CHANGES = [
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    'CMD ["python3"]',
]
_BY_HAND = "set LONGSHORE_BASE_IMAGE to an image that has python3 with venv and pip"


def ensure_python_base(docker_host: str, name: str = DEFAULT_NAME) -> str:
    """Make sure that the engine has a Python image to build on, and return its name.

    An image that `LONGSHORE_BASE_IMAGE` names wins (pulled where the engine lacks it); then one of this name that is
    there; else one is made from the distribution's packages, about half a minute the first time.

    Raises:
        PartFailedError: it cannot be pulled or made here; the text says what to set.
    """
    with closing(docker.DockerClient(base_url=docker_host, timeout=300)) as client:
        named = os.environ.get("LONGSHORE_BASE_IMAGE")
        if named:
            return _present_or_pulled(client, named)
        if not _is_present(client, name):
            tarball = python_base_tarball()
            say(f"importing {name} into the engine")
            _import(client, tarball, name)
    return name


def cache_directory() -> Path:
    """Where the tarball is kept: `LONGSHORE_PARTS_CACHE`, else longshore/ in the user's cache directory."""
    named = os.environ.get("LONGSHORE_PARTS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longshore"


def python_base_tarball() -> Path:
    """The base image's file system as a tar file, made unless a run before made it.

    Raises:
        PartFailedError: this is not root, or not a Debian or Ubuntu with mmdebstrap, or making it failed.
    """
    system = platform.freedesktop_os_release()
    codename = system.get("VERSION_CODENAME", "")
    cached = cache_directory() / f"python-base-{system['ID']}-{codename}-{platform.machine()}-v{_RECIPE}.tar"
    if cached.exists():
        return cached
    mmdebstrap = find_program("mmdebstrap")
    if os.geteuid() != 0 or mmdebstrap is None or not codename:
        raise PartFailedError(
            "making a base image needs root and mmdebstrap on Debian or Ubuntu (apt-get install mmdebstrap); "
            f"or {_BY_HAND}"
        )
    say(f"making a Python base image from the packages of {system['ID']} {codename}, once (about half a minute)")
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="base-image-", dir=cached.parent) as work:
        made = Path(work) / "base.tar"
        run_to_end(
            "mmdebstrap",
            [mmdebstrap, *_options(Path(work)), codename, str(made), *_archive_lines(codename)],
            log=Path(work) / "log",
            environment={"TMPDIR": work},
        )
        made.replace(cached)
    return cached


def _options(work: Path) -> list[str]:
    options = ["--mode=root", "--format=tar", "--variant=minbase", f"--include={_PACKAGES}"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    # A build that a crash cuts short is begun anew: no need to wait for the disk after every file.
    options += ["--dpkgopt=force-unsafe-io"]
    options += ['--aptopt=Acquire::Languages "none"', "--aptopt=Acquire::Retries 3"]
    if proxies := _apt_proxies():
        listed = work / "proxies"
        listed.write_text(proxies)
        options.append(f"--aptopt={listed}")
    if _MERGED_USR_HOOK.is_dir():
        # Otherwise the package usrmerge does this inside the image, and brings fifty megabytes of Perl for it.
        options += [f"--hook-dir={_MERGED_USR_HOOK}", "--include=?exact-name(usr-is-merged)"]
    # The host's proxies and our exclusions are nobody's business inside the image.
    forget = 'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap'
    return [*options, f"--customize-hook={forget}"]


def _apt_proxies() -> str:
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return "".join(f"{line}\n" for line in dumped.splitlines() if line.startswith("Acquire::") and "::Proxy" in line)


def _archive_lines(codename: str) -> list[str]:
    """The machine's own package archive and its updates, as lines of a sources.list; other vendors' are left out.

    Raises:
        PartFailedError: apt knows no archive of this release.
    """
    lines = _known_archive_lines(codename)
    if not lines:
        subprocess.run(["apt-get", "-qq", "update"], check=False, capture_output=True)
        lines = _known_archive_lines(codename)
    if not lines:
        raise PartFailedError(f"apt has no package archive of {codename} in its sources: {_BY_HAND}")
    return lines


def _known_archive_lines(codename: str) -> list[str]:
    shown = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = []
    for line in shown.splitlines():
        origin, address, release, component = line.split("|")
        if origin in {"Debian", "Ubuntu"} and release.partition("-")[0] == codename:
            lines.append(f"deb {address} {release} {component}")
    return list(dict.fromkeys(lines))


def _is_present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _present_or_pulled(client: docker.DockerClient, name: str) -> str:
    if not _is_present(client, name):
        say(f"pulling {name}")
        try:
            client.images.pull(name)
        except APIError as error:
            raise PartFailedError(f"LONGSHORE_BASE_IMAGE names {name}, which cannot be pulled: {error}") from error
    return name


def _import(client: docker.DockerClient, tarball: Path, name: str) -> None:
    repository, _, tag = name.rpartition(":")
    answer = client.api.import_image_from_file(str(tarball), repository=repository, tag=tag, changes=_CHANGES)
    # The engine reports a failure inside a 200 answer: lines of JSON, the last of which has an "error".
    messages = [json.loads(line) for line in answer.splitlines() if line.strip()]
    errors = [message["error"] for message in messages if "error" in message]
    if errors:
        raise PartFailedError(f"importing the base image failed: {errors[0]}")
