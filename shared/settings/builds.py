"""Settings of the queue builds: base images, environments, limits of builds, load checks, sources."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from shared.settings.parsing import (
    existing_file,
    read_environments,
    read_networks,
    read_python_versions,
    read_ssh_key_scopes,
)
from shared.settings.serving import MEBIBYTE

MINUTE = 60
DEFAULT_ENVIRONMENT, DEFAULT_ENVIRONMENT_ALIAS = "python3", "python3-1"
"""The environment of algorithms that name none; the platform's clients have both names."""
_NETWORKS_WITHOUT_INDEX_FILES = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7",
)  # fmt: skip

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BuildSettings(BaseSettings):
    """The part of `Settings` for the queue builds, and for the sources that it fetches."""

    base_image: str = Field(
        "python:3.11-slim-bookworm",
        description="Base image of the `python3` environments. Pulled unless the engine has it.",
    )
    python_versions: Annotated[tuple[str, ...], NoDecode] = Field(
        ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13"),
        description="Versions of Python that algorithms can choose as environments (`python38` and so on), comma-separated; empty: none.",
    )
    python_image: str = Field(
        "python:{version}-slim-bookworm",
        description="Base image of these environments, with {version} for the version. Pulled unless the engine has it.",
    )
    environments: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Further environments, or other base images of those: a JSON object from name to base image.",
    )
    kit_requirement: str = Field(
        "algorithmia>=2,<3",
        description="Requirement for the platform's development kit. Installed unless the algorithm's requirements include it.",
    )
    build_network: str = Field(
        "longshore-builds",
        description="Network of builds: longshore-builds (Longshore's own, which reaches neither this machine nor private "
        "networks), another Docker network, `none`, or `host` (then untrusted source can reach the services of the build machine).",
    )
    build_ca_bundle: Path | None = Field(
        None, description="PEM file of certificates to trust for downloads during a build. Not kept in the image."
    )
    build_index_url: SecretStr | None = Field(
        None,
        description="URL of the package index of builds, with credentials if it needs them. Workers fetch from it: builds "
        "never get the URL.",
        json_schema_extra={"masked": True},
    )
    build_index_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("0.0.0.0/0", "::/0", *(f"!{network}" for network in _NETWORKS_WITHOUT_INDEX_FILES)),
        description="Networks of files that this index links to on other hosts, in the form of LONGSHORE_REGISTRY_NETWORKS.",
    )
    build_memory_bytes: int = Field(4096 * MEBIBYTE, ge=64 * MEBIBYTE, description="Memory limit of a build, in bytes.")
    build_cpus: float = Field(2.0, gt=0, description="CPU limit of a build, in cores.")
    build_pids: int = Field(1024, ge=16, description="Process limit of a build.")
    build_seconds: int = Field(30 * MINUTE, ge=1, description="Time limit of a build, in seconds.")
    build_max_bytes: int = Field(
        16 * 1024 * MEBIBYTE, ge=64 * MEBIBYTE, description="Maximum disk space of a build's container, in bytes."
    )
    build_max_files: int = Field(1_000_000, ge=10_000, description="Maximum number of files of a build's container.")
    build_log_bytes: int = Field(4 * MEBIBYTE, ge=1024, description="Maximum size of a stored build log, in bytes.")
    build_logs_per_owner: int = Field(
        500,
        ge=1,
        description="How many logs of ended builds are kept of one owner; the others are removed, oldest first.",
    )
    load_check: Literal["off", "report", "require"] = Field(
        "report",
        description="Whether a built algorithm is imported in its image, without network: off, report (after the build, which does "
        "not wait for it; the verdict is in `build.load_check` and in the log) or require (before the push: a failure fails the "
        "build). Skipped where there is no engine.",
    )
    load_check_seconds: float = Field(
        120,
        gt=0,
        description="How long the import of a load check may take, and before that the loading of its image, in seconds.",
    )
    load_check_max_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=0,
        description="Largest image (compressed) that a load check of the kind `report` loads into the engine, in bytes.",
    )
    build_own_dockerfile: bool = Field(
        False,
        description="Build a repository's own Dockerfile if it has one. Its FROM and COPY --from can name any image on the "
        "engine, also those of other owners.",
    )
    build_on_push: bool = Field(
        True, description="Compile a commit that is pushed to the default branch of a hosted repository."
    )

    source_max_bytes: int = Field(
        256 * MEBIBYTE, ge=1024, description="Maximum size of the source of a commit, and of a git push, in bytes."
    )
    source_seconds: int = Field(5 * MINUTE, ge=1, description="Time limit for fetching a source, in seconds.")
    source_allow_http: bool = Field(False, description="Allow plain http:// URLs of external repositories.")
    source_ssh_key: Path | None = Field(
        None, description="Private key for fetching ssh:// repositories. LONGSHORE_SOURCE_SSH_KEY_SCOPES says for whom."
    )
    source_ssh_key_scopes: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Who may fetch what with that key, comma-separated: OWNER=ssh://git@HOST/PATH allows that path and "
        "all below it; * as OWNER stands for everybody. Empty: nobody.",
    )
    source_ssh_known_hosts: Path | None = Field(
        None, description="known_hosts file for ssh:// repositories. Without it ssh:// URLs are refused."
    )

    source_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("0.0.0.0/0", "::/0", "!127.0.0.0/8", "!::1/128"),
        description="Networks of allowed external repositories, in the same form. By default not this machine itself.",
    )
    source_trusted_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Private networks of git servers, in the same form, whose errors callers may see. For all other addresses "
        "outside of the public internet callers are only told that the repository cannot be read.",
    )

    @field_validator("environments", mode="before")
    @classmethod
    def _read_environments(cls, value: object) -> object:
        return read_environments(value) if isinstance(value, str) else value

    @field_validator("environments")
    @classmethod
    def _have_names_and_images(cls, value: dict[str, str]) -> dict[str, str]:
        for name, image in value.items():
            if not _ENVIRONMENT_NAME.fullmatch(name) or not image or image != image.strip():
                raise ValueError(
                    'must be a JSON object such as {"python39": "python:3.9-slim"}, with names of letters, digits, ".", "_" '
                    f'and "-" (at most 100 characters); {name!r}: {image!r} is not'
                )
        return value

    @field_validator("python_versions", mode="before")
    @classmethod
    def _read_python_versions(cls, value: object) -> object:
        return read_python_versions(value) if isinstance(value, str) else value

    @field_validator("python_image")
    @classmethod
    def _has_version(cls, value: str) -> str:
        if value.count("{version}") != 1 or "{" in value.replace("{version}", ""):
            raise ValueError("must have {version} once, as in python:{version}-slim-bookworm")
        return value

    @field_validator("source_ssh_key_scopes", mode="before")
    @classmethod
    def _read_ssh_key_scopes(cls, value: object) -> object:
        return read_ssh_key_scopes(value) if isinstance(value, str) else value

    @field_validator("build_index_networks", "source_networks", "source_trusted_networks", mode="before")
    @classmethod
    def _read_source_networks(cls, value: object) -> object:
        return read_networks(value, with_exceptions=True)

    @field_validator("build_ca_bundle", "source_ssh_key", "source_ssh_known_hosts")
    @classmethod
    def _source_file_exists(cls, value: Path | None) -> Path | None:
        return existing_file(value)

    @field_validator("build_ca_bundle")
    @classmethod
    def _has_no_private_key(cls, value: Path | None) -> Path | None:
        if value is not None and b"PRIVATE KEY-----" in value.read_bytes():
            raise ValueError(f"names {value}, which has a private key in it: builds can read the file")
        return value

    @field_validator("build_index_url")
    @classmethod
    def _is_index_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"https?://[^/]", value.get_secret_value()):
            raise ValueError("must be the URL of a package index: https://[USER:PASSWORD@]HOST/PATH")
        return value

    @property
    def base_images(self) -> dict[str, str]:
        """The base images of all environments by name; the default comes first."""
        return {
            DEFAULT_ENVIRONMENT: self.base_image,
            DEFAULT_ENVIRONMENT_ALIAS: self.base_image,
            **{
                f"python{version.replace('.', '')}": self.python_image.replace("{version}", version)
                for version in self.python_versions
            },
            **self.environments,
        }
