"""Environment images: a base image with an algorithm's requirements installed, made once for equal requirements.

They are installed in a container that is then committed, not by a Dockerfile: what the steps are given (the package
index with its password, the certificates) is thereby in no layer, configuration or history of the image.
"""

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from docker.errors import APIError

from shared.errors import ErrorClass, WorkError
from workers.engine.connection import interruptible
from workers.engine.container import BUILDER, ENVIRONMENT, WORK, BuildContainer, build_container
from workers.engine.images import described_image, image_id_of
from workers.engine.key_lock import key_lock
from workers.engine.limits import BuildLimits
from workers.engine.log import without_credentials
from workers.engine.pip_failure import PipOutput
from workers.engine.requirements import FILE, NO_REQUIREMENTS, Requirements
from workers.engine.source import SourceTree, add_file, new_archive
from workers.engine.watch import BuildWatch
from workers.runner import SOURCE_DIRECTORY

BUILDER_VERSION = 1
"""Raised whenever environments are made in another way, so that no old one is taken for a new one."""
REPOSITORY = "longshore/environment"
_PYTHON = f"{ENVIRONMENT}/bin/python"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CA_BUNDLE = f"{WORK}/ca-bundle.pem"
_INSTALLED = f"{WORK}/scratch/installed.txt"
_PIP_INSTALL = [
    _PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-color",
    "--progress-bar", "off",
]  # fmt: skip


@dataclass(frozen=True)
class BaseImage:
    """What an environment is made on: the image's id and platform, and the search path that it sets."""

    image_id: str
    platform: str
    path: str


@dataclass(frozen=True)
class EnvironmentSpec:
    """What an environment is made from. `index_url` may hold credentials; they are in no key, log or image."""

    base_image: str
    requirements: Requirements
    owner: str
    kit_requirement: str
    index_url: str | None
    ca_bundle: bytes | None
    network: str
    limits: BuildLimits
    commit: str = ""
    """The commit that it is made for first; it takes no part in the key."""


@dataclass(frozen=True)
class Environment:
    """An environment image on the engine; one made with the source has no key, since nobody else may use it."""

    image_id: str
    key: str | None
    reused: bool


def environment_key(spec: EnvironmentSpec, base: BaseImage) -> str | None:
    """The hexadecimal SHA-256 of all that decides what is installed; None where the source itself takes part.

    Unless every requirement is pinned by hash the owner takes part: what one owner's build found on the index then
    is no other owner's business.
    """
    if not spec.requirements.shareable:
        return None
    parts = {
        "builder": BUILDER_VERSION,
        "base": base.image_id,
        "platform": base.platform,
        "requirements": spec.requirements.fingerprint(),
        "kit": spec.kit_requirement,
        "index": without_credentials(spec.index_url) if spec.index_url else None,
        "owner": None if spec.requirements.pinned_by_hash else spec.owner,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def ensure_environment(
    spec: EnvironmentSpec,
    tree: SourceTree,
    watch: BuildWatch,
    lock_directory: Path | None = None,
) -> Environment:
    """Find the environment image on the engine, or make it.

    With a `lock_directory`, builds of one key on this machine wait for each other instead of doing the work twice.

    Raises:
        Stopped: the stop was asked for.
        WorkError: a requirement cannot be installed, or the time is used up (invalid); the index could not be
            reached (transient); the engine, the base image or the network is missing (unavailable).
    """
    base = _base_image(spec.base_image, watch)
    key = environment_key(spec, base)
    if key is None:
        watch.log("The requirements name the source or a repository: this environment is made for this build alone")
        return Environment(_make(spec, base, tree, None, watch), None, reused=False)
    with key_lock(lock_directory, key, watch):
        found = image_id_of(f"{REPOSITORY}:{key}")
        if found is not None:
            watch.log(f"The requirements are installed already: environment {key[:12]} is used again")
            return Environment(found, key, reused=True)
        return Environment(_make(spec, base, tree, key, watch), key, reused=False)


def _base_image(name: str, watch: BuildWatch) -> BaseImage:
    if image_id_of(name) is None:
        with watch.log.step(f"Pulling the base image {name}"):
            _pull_base_image(name, watch)
    found = described_image(name)
    if found is None:
        raise _no_base_image(name, "it was removed at this very moment")
    variables = dict(entry.split("=", 1) for entry in found["Config"].get("Env") or [])
    return BaseImage(
        found["Id"],
        "/".join(filter(None, (found["Os"], found["Architecture"], found.get("Variant")))),
        variables.get("PATH") or _SYSTEM_PATH,
    )


def _pull_base_image(name: str, watch: BuildWatch) -> None:
    with interruptible(watch.stop, watch.deadline) as client:
        try:
            failures = [part["error"] for part in client.pull(name, stream=True, decode=True) if "error" in part]
        except APIError as error:
            failures = [str(error.explanation)]
    if failures:
        raise _no_base_image(name, failures[0])


def _no_base_image(name: str, why: str) -> WorkError:
    return WorkError(
        ErrorClass.UNAVAILABLE,
        f"the base image {name} (LONGSHORE_BASE_IMAGE) is not on the Docker engine and cannot be pulled: "
        f"{why}; the job waits",
    )


def _make(spec: EnvironmentSpec, base: BaseImage, tree: SourceTree, key: str | None, watch: BuildWatch) -> str:
    with build_container(base.image_id, spec.owner, spec.network, spec.limits, watch, commit=spec.commit) as container:
        _Installation(spec, base, tree, container).run()
        with watch.log.step("Keeping the environment"):
            return container.commit(_configuration(base), REPOSITORY if key else None, key)


class _Installation:
    """The steps that fill a container."""

    def __init__(self, spec: EnvironmentSpec, base: BaseImage, tree: SourceTree, container: BuildContainer) -> None:
        self._spec = spec
        self._tree = tree
        self._log = container.watch.log
        self._container = container
        self._alone = not spec.requirements.shareable
        # An editable install of the source must stay valid, so a source that takes part stands where it will run.
        self._directory = SOURCE_DIRECTORY if self._alone else f"{WORK}/source"
        self._variables = _variables(spec, base)

    def run(self) -> None:
        self._container.put(lambda archive: self._write_inputs(cast("BinaryIO", archive)))
        with self._log.step("Making a virtual environment"):
            self._make_virtual_environment()
        if self._spec.requirements.files:
            with self._log.step(f"Installing {FILE}"):
                self._install(["-r", FILE], self._spec.requirements)
        if self._spec.kit_requirement and not self._has_kit():
            with self._log.step(f"The requirements bring no development kit: adding {self._spec.kit_requirement}"):
                self._install_kit()

    def _write_inputs(self, archive: BinaryIO) -> None:
        with new_archive(archive) as tar:
            if self._alone:
                self._tree.write_to(tar, SOURCE_DIRECTORY.strip("/"), BUILDER)
            else:
                _add_files(tar, self._directory.strip("/"), self._spec.requirements.files)
            if self._spec.ca_bundle:
                add_file(tar, _CA_BUNDLE.strip("/"), self._spec.ca_bundle)

    def _make_virtual_environment(self) -> None:
        if self._run(["python3", "-m", "venv", ENVIRONMENT], f"{WORK}/home") != 0:
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the base image {self._spec.base_image} (LONGSHORE_BASE_IMAGE) cannot make a virtual environment: "
                "it needs python3 with venv; the job waits",
            )

    def _install(self, arguments: list[str], requirements: Requirements) -> None:
        output = PipOutput(requirements, self._spec.limits.memory_bytes)
        exit_code = self._run([*_PIP_INSTALL, *arguments], self._directory, output)
        if exit_code != 0:
            error = output.failure(exit_code)
            raise WorkError(error.error_class, self._log.masked(error.message))

    def _has_kit(self) -> bool:
        return self._run([_PYTHON, "-I", "-c", "import Algorithmia"], f"{WORK}/home", shown=False) == 0

    def _install_kit(self) -> None:
        """Install the kit beside what is there, of which nothing may move."""
        keep = (
            "import sys\n"
            "from importlib.metadata import distributions\n"
            "with open(sys.argv[1], 'w') as kept:\n"
            "    kept.writelines(f'{found.name}=={found.version}\\n' for found in distributions())\n"
        )
        self._run([_PYTHON, "-I", "-c", keep, _INSTALLED], f"{WORK}/home")
        try:
            self._install(["-c", _INSTALLED, self._spec.kit_requirement], NO_REQUIREMENTS)
        except WorkError as error:
            raise WorkError(
                error.error_class,
                f"the development kit {self._spec.kit_requirement} cannot be installed beside the requirements: "
                f"{error.message.removeprefix(FILE + ': ')}",
            ) from None
        if not self._has_kit():
            self._log("The development kit is installed, but `import Algorithmia` fails")

    def _run(self, command: list[str], directory: str, output: PipOutput | None = None, *, shown: bool = True) -> int:
        def take(line: str) -> None:
            if output is not None:
                output.read(line)
            if shown:
                self._log(line)

        return self._container.run(command, self._variables, directory, take)


def _add_files(tar: tarfile.TarFile, directory: str, files: Mapping[str, bytes]) -> None:
    for path, content in sorted(files.items()):
        add_file(tar, f"{directory}/{path}", content, BUILDER)


def _variables(spec: EnvironmentSpec, base: BaseImage) -> dict[str, str]:
    variables = {
        "HOME": f"{WORK}/home",
        "TMPDIR": f"{WORK}/scratch",
        "PATH": f"{ENVIRONMENT}/bin:{base.path}",
        "LANG": "C.UTF-8",
    }
    if spec.index_url:
        variables["PIP_INDEX_URL"] = spec.index_url
    if spec.ca_bundle:
        variables |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), _CA_BUNDLE)
        variables["GIT_SSL_CAINFO"] = _CA_BUNDLE
    return variables


def _configuration(base: BaseImage) -> dict[str, object]:
    """The configuration of the committed image; whatever is not set here, the engine copies from the container."""
    return {
        "Env": [f"PATH={ENVIRONMENT}/bin:{base.path}", f"VIRTUAL_ENV={ENVIRONMENT}"],
        "Entrypoint": [_PYTHON],
        "Cmd": [],
        "User": f"{BUILDER}:{BUILDER}",
        "WorkingDir": "/",
    }
