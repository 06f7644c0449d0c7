"""Make a Python base image from the system's package archive, for machines on which no image can be pulled."""

import json
import os
import platform
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

from dev.services.processes import ServiceFailedError, find_program, run_to_end, say

DEFAULT_NAME = "longshore-base:python3"

DEBIAN_PYTHONS = {"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie"}
"""The releases of Debian by the version of their Python."""

_RECIPE = 1  # to be raised when the content of the tarball changes
_PACKAGES = "python3,python3-venv,ca-certificates"
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
_MERGED_USR_HOOK = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
_CHANGES = [
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    'CMD ["python3"]',
]
_REMEDY = "set LONGSHORE_BASE_IMAGE to an image that has python3 with venv and pip"


def ensure_python_base(docker_host: str, name: str = DEFAULT_NAME) -> str:
    """Make sure that the engine has a Python image to build on, and return its name.

    That is the image of `LONGSHORE_BASE_IMAGE`, pulled if necessary; else an existing image with this name; else one
    made from the distribution's packages, which takes about half a minute the first time.

    Raises:
        ServiceFailedError: it cannot be pulled or made here; the message says what to set.
    """
    with closing(docker.DockerClient(base_url=docker_host, timeout=300)) as client:
        named = os.environ.get("LONGSHORE_BASE_IMAGE")
        if named:
            return _ensure_pulled(client, named)
        if not is_present(client, name):
            import_tarball(client, python_base_tarball(), name)
    return name


def cache_directory() -> Path:
    """Return the directory of the tarball: `LONGSHORE_DEV_CACHE`, else longshore/ in the user's cache directory."""
    named = os.environ.get("LONGSHORE_DEV_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longshore"


def python_base_tarball(release: str | None = None) -> Path:
    """Return the file system of a base image as a tar file; make it unless an earlier run did.

    `release` is the code name of a release of the machine's own distribution; None: the one it runs.

    Raises:
        ServiceFailedError: this is not root, or not a Debian or Ubuntu with mmdebstrap, or making it failed.
    """
    system = platform.freedesktop_os_release()
    codename = release or system.get("VERSION_CODENAME", "")
    cached = cache_directory() / f"python-base-{system['ID']}-{codename}-{platform.machine()}-v{_RECIPE}.tar"
    if cached.exists():
        return cached
    mmdebstrap = find_program("mmdebstrap")
    if os.geteuid() != 0 or mmdebstrap is None or not codename:
        raise ServiceFailedError(
            "making a base image needs root and mmdebstrap on Debian or Ubuntu (apt-get install mmdebstrap); "
            f"or {_REMEDY}"
        )
    say(f"making a Python base image from the packages of {system['ID']} {codename}, once (about half a minute)")
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="base-image-", dir=cached.parent) as work:
        made = Path(work) / "base.tar"
        run_to_end(
            "mmdebstrap",
            [mmdebstrap, *_options(Path(work)), codename, str(made), *_archive_lines(codename, release)],
            log=Path(work) / "log",
            environment={"TMPDIR": work},
        )
        made.replace(cached)
    return cached


def _options(work: Path) -> list[str]:
    options = ["--mode=root", "--format=tar", "--variant=minbase", f"--include={_PACKAGES}"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    # An interrupted installation starts again from nothing: no need to sync after every file.
    options += ["--dpkgopt=force-unsafe-io"]
    options += ['--aptopt=Acquire::Languages "none"', "--aptopt=Acquire::Retries 3"]
    if proxies := _apt_proxies():
        listed = work / "proxies"
        listed.write_text(proxies)
        options.append(f"--aptopt={listed}")
    if _MERGED_USR_HOOK.is_dir():
        # Otherwise the package usrmerge does this inside the image, with fifty megabytes of Perl.
        options += [f"--hook-dir={_MERGED_USR_HOOK}", "--include=?exact-name(usr-is-merged)"]
    # The host's proxies and the exclusions do not belong into the image.
    remove_settings = 'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap'
    return [*options, f"--customize-hook={remove_settings}"]


def _apt_proxies() -> str:
    output = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return "".join(f"{line}\n" for line in output.splitlines() if line.startswith("Acquire::") and "::Proxy" in line)


def _archive_lines(codename: str, other_release: str | None) -> list[str]:
    """Return the machine's package archive and its updates as lines of a sources.list, without other vendors' archives.

    Of another release, only the archive itself: an old one has no updates any more.

    Raises:
        ServiceFailedError: apt has no archive of the release that the machine runs.
    """
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    lines = _known_archive_lines(own)
    if not lines:
        subprocess.run(["apt-get", "-qq", "update"], check=False, capture_output=True)
        lines = _known_archive_lines(own)
    if not lines:
        raise ServiceFailedError(f"apt has no package archive of {own} in its sources: {_REMEDY}")
    if other_release is None or other_release == own:
        return lines
    return [line.replace(f" {own} ", f" {codename} ") for line in lines if f" {own} " in line]


def _known_archive_lines(codename: str) -> list[str]:
    output = subprocess.run(
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
    for line in output.splitlines():
        origin, address, release, component = line.split("|")
        if origin in {"Debian", "Ubuntu"} and release.partition("-")[0] == codename:
            lines.append(f"deb {address} {release} {component}")
    return list(dict.fromkeys(lines))


def is_present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _ensure_pulled(client: docker.DockerClient, name: str) -> str:
    if not is_present(client, name):
        say(f"pulling {name}")
        try:
            client.images.pull(name)
        except APIError as error:
            raise ServiceFailedError(f"LONGSHORE_BASE_IMAGE names {name}, which cannot be pulled: {error}") from error
    return name


def import_tarball(client: docker.DockerClient, tarball: Path, name: str) -> None:
    """Import a file system into the engine as an image.

    Raises:
        ServiceFailedError: the engine refused it.
    """
    say(f"importing {name} into the engine")
    repository, _, tag = name.rpartition(":")
    response = client.api.import_image_from_file(str(tarball), repository=repository, tag=tag, changes=_CHANGES)
    # The engine reports a failure inside a response with status 200: lines of JSON, the last of which has an "error".
    messages = [json.loads(line) for line in response.splitlines() if line.strip()]
    errors = [message["error"] for message in messages if "error" in message]
    if errors:
        raise ServiceFailedError(f"importing the base image failed: {errors[0]}")
