"""Every setting, in one documented class, read from `LONGSHORE_*` variables and refused at start when wrong."""

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from shared.settings.parsing import masked, read_delays, read_environments, read_networks, read_secret_keys, shown
from shared.settings.serving import ServingSettings
from shared.settings.variables import PREFIX, is_service_link, renamed_variables, unknown_variables

MINUTE = 60
MEBIBYTE = 1024 * 1024
REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://")


class SettingsError(Exception):
    """A setting cannot be used; the message names the variable and says what it must be."""


class _EnvironmentSource(EnvSettingsSource):
    """Reads the settings' variables, except those that Kubernetes set for a Service."""

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str) and is_service_link(f"{PREFIX}{field_name.upper()}", value):
            value = None
        return value, key, is_complex


class Settings(ServingSettings):
    """What an operator can set. Each field's description is what `longshore settings` prints."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    data_dir: Path = Field(
        Path("longshore-data"), description="Where one machine keeps its database, repositories and keys."
    )
    database_url: str = Field(
        "",
        description="SQLAlchemy URL of the database: sqlite:///PATH, or postgresql+psycopg://USER:PASSWORD@HOST/NAME "
        "where there is more than one machine. Empty: longshore.db in the data directory.",
        json_schema_extra={"masked": True},
    )
    redis_url: str = Field(
        "",
        description="Redis that carries the messages: redis://HOST:PORT/DB, rediss:// or redis+socket://PATH. "
        "Empty: `longshore up` starts one on a private socket; the other commands refuse to start.",
        json_schema_extra={"masked": True},
    )
    secret_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(
        default_factory=dict,
        description="Keys that seal stored passwords: ID:BASE64,ID:BASE64 with 32 bytes each. The first seals; all open. "
        "Empty: the file secret-keys in the data directory, made on first use by `longshore up`.",
        json_schema_extra={"masked": True},
    )

    host: str = Field("127.0.0.1", description="Address that the API, the git service and the gate listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the gate: the one address of everything.")
    api_port: int = Field(8081, ge=0, le=65535, description="Port of `longshore api` behind the gate.")
    git_port: int = Field(8082, ge=0, le=65535, description="Port of `longshore git` behind the gate.")
    api_workers: int = Field(2, ge=1, le=64, description="Processes of `longshore api`.")
    api_threads: int = Field(
        8, ge=2, le=256, description="Threads of each API process; half of them may wait (Prefer: wait, events)."
    )
    public_url: str = Field(
        "", description="Address that callers use, for links and clone URLs. Empty: taken from each request."
    )
    api_url: str = Field("", description="Where the gate finds the API. Empty: http://127.0.0.1 and the API port.")
    git_url: str = Field(
        "", description="Where API, workers and gate find the git service. Empty: http://127.0.0.1 and the git port."
    )
    max_body_bytes: int = Field(2 * MEBIBYTE, ge=1024, description="Largest body of an API request, in bytes.")
    rate_limit_changes: int = Field(
        20_000,
        ge=0,
        description="Requests that change something, per key and minute, over all API processes; 0: no limit.",
    )
    rate_limit_reads: int = Field(
        60_000, ge=0, description="Requests that read, per key and minute, in each API process; 0: no limit."
    )
    rate_limit_calls: int = Field(
        60_000,
        ge=0,
        description="Calls of algorithms, per key and minute, in each process of `longshore calls`; 0: no limit.",
    )
    rate_limit_git: int = Field(
        600, ge=0, description="Requests of git clients, per key and minute (a push has three); 0: no limit."
    )
    rate_limit_unknown: int = Field(
        600, ge=0, description="Requests without a known key, per address and minute, in each process; 0: no limit."
    )
    gate_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.0/8", "::1/128"),
        description="Where the gate is, comma-separated networks: API and git service believe it who a caller is.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Load balancers before the gate, comma-separated networks, whose X-Forwarded-For is believed."
    )
    max_wait_seconds: int = Field(
        60, ge=0, le=600, description="Longest wait that `Prefer: wait=N` can ask for, in seconds."
    )

    keepalive_seconds: float = Field(
        25, gt=0, description="How often a job's event stream says that it lives while nothing happens, in seconds."
    )

    base_image: str = Field(
        "python:3.11-slim-bookworm",
        description="Image that the `python3` environments build on: pulled unless the engine has it.",
    )
    environments: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Further environments as a JSON object, name to base image, for `algorithm_environment` and `package_set`.",
    )
    kit_requirement: str = Field(
        "algorithmia>=2,<3",
        description="The platform's development kit, installed where the requirements did not bring it.",
    )
    build_network: str = Field(
        "bridge",
        description="Network of builds: a Docker network, `none`, or `host` (source is untrusted: it can then reach "
        "the services of the build machine).",
    )
    build_ca_bundle: Path | None = Field(
        None, description="PEM file of certificates that downloads during a build trust; never stays in the image."
    )
    build_index_url: SecretStr | None = Field(
        None,
        description="Package index of builds, with credentials where it needs them; never stays in the image.",
        json_schema_extra={"masked": True},
    )
    build_memory_bytes: int = Field(4096 * MEBIBYTE, ge=64 * MEBIBYTE, description="Memory limit of a build, in bytes.")
    build_cpus: float = Field(2.0, gt=0, description="CPU limit of a build, in cores.")
    build_pids: int = Field(1024, ge=16, description="Process limit of a build.")
    build_seconds: int = Field(30 * MINUTE, ge=1, description="Time limit of a build, in seconds.")
    build_log_bytes: int = Field(4 * MEBIBYTE, ge=1024, description="Longest log kept of a build, in bytes.")
    build_own_dockerfile: bool = Field(
        False,
        description="Whether a Dockerfile at the top of a repository is built instead. What it names in FROM and COPY --from "
        "can be any image on the engine, other owners' too.",
    )
    build_on_push: bool = Field(
        True, description="Whether a push to a hosted repository's default branch compiles the commit."
    )

    source_max_bytes: int = Field(
        256 * MEBIBYTE, ge=1024, description="Largest source of one commit, and largest git push, in bytes."
    )
    source_seconds: int = Field(5 * MINUTE, ge=1, description="Time limit for fetching a source, in seconds.")
    source_allow_http: bool = Field(
        False, description="Whether repositories elsewhere may be named by plain http:// URLs."
    )
    source_ssh_key: Path | None = Field(
        None, description="Private key with which repositories named by ssh:// are fetched."
    )
    source_ssh_known_hosts: Path | None = Field(
        None, description="known_hosts file for ssh:// repositories; without it ssh:// is refused."
    )

    registry_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("0.0.0.0/0", "::/0"),
        description="Networks that registries may be in, comma-separated, with ! in front of those that are excepted: "
        "0.0.0.0/0,!10.0.0.0/8. Link-local and metadata addresses never are.",
    )
    source_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("0.0.0.0/0", "::/0"), description="The same for repositories elsewhere, which callers name."
    )
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("0.0.0.0/0", "::/0"), description="The same for the targets of webhooks."
    )
    webhook_allow_http: bool = Field(
        False, description="Whether webhooks may have plain http:// targets on other machines than this one."
    )
    webhook_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (5, 30, 120, 600, 3600, 21600),
        description="Seconds before an event is sent to a webhook again that did not take it, comma-separated.",
    )
    webhook_keep_days: float = Field(7, gt=0, description="How long deliveries that ended are kept, in days.")

    transport: Literal["direct", "engine"] = Field(
        "direct",
        description="How images are pushed, unless a registry says otherwise: direct (by Longshore, from its image store) "
        "or engine (by the Docker engine).",
    )
    uploads_per_push: int = Field(4, ge=1, le=64, description="Blobs that one direct push uploads at once.")
    uploads_per_registry: int = Field(
        16, ge=1, le=1024, description="Blobs that all workers of this machine upload to one registry at once."
    )
    registry_proxy: SecretStr | None = Field(
        None,
        description="HTTP proxy to registries, http://[USER:PASSWORD@]HOST:PORT, unless a registry names its own. It resolves "
        "their names, so what they stand for is not checked again at the connection.",
        json_schema_extra={"masked": True},
    )
    registry_no_proxy: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "::1"),
        description="Hosts of registries, comma-separated, that are reached without that proxy; `.example.com` stands for all "
        "below it.",
    )
    store_max_bytes: int = Field(
        50 * 1024 * MEBIBYTE,
        ge=64 * MEBIBYTE,
        description="Size in bytes to which the image store on this machine's disk is brought back after jobs; what jobs "
        "still need stays beyond it.",
    )
    home_registry: str = Field(
        "",
        description="Registry of the platform's own, HOST[:PORT]/PATH, that is the image store of all workers. Empty: each "
        "machine keeps its own in its data directory.",
    )
    home_registry_username: str = Field("", description="Username for the home registry.")
    home_registry_password: SecretStr | None = Field(
        None, description="Password for the home registry.", json_schema_extra={"masked": True}
    )
    home_registry_ca: Path | None = Field(
        None, description="PEM file of the authority that signed the home registry's certificate."
    )

    worker_concurrency: int = Field(2, ge=1, le=256, description="Jobs that one worker process pool runs at once.")
    worker_health_port: int = Field(
        0, ge=0, le=65535, description="Port of a worker's /healthz and /readyz on the listening address; 0: none."
    )
    lease_seconds: int = Field(60, ge=3, description="How long a claim lasts without a heartbeat, in seconds.")
    heartbeat_seconds: float = Field(
        15,
        gt=0,
        validate_default=True,
        description="How often a running job renews its lease, in seconds: at most half of the lease.",
    )
    stuck_seconds: int = Field(
        45 * MINUTE, ge=60, description="A job whose work does not move for this long loses its lease, in seconds."
    )
    retry_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (2, 8, 30, 120, 600),
        description="Seconds before each new try after a passing failure, comma-separated; jitter is added.",
    )
    registry_pushes: int = Field(
        16,
        ge=1,
        le=10_000,
        description="Pushes to one registry at once, unless the registry's own max_pushes says otherwise.",
    )
    pause_after_failures: int = Field(
        5,
        ge=1,
        description="A registry that fails so many times in a row for everybody (away, or its own password refused) is paused.",
    )
    probe_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (30, 60, 120, 300, 900),
        min_length=1,
        description="Seconds until a push tries a paused registry, and then again each time that it fails, comma-separated.",
    )
    max_losses: int = Field(5, ge=1, description="How many times a job may lose its worker before it is failed.")
    unavailable_delay_seconds: float = Field(
        15, gt=0, description="Wait before asking again for a missing engine or disk, in seconds."
    )
    stalled_unclaimed_seconds: int = Field(
        60, ge=1, description="A due push that nobody claims for this long, with no worker alive, is stalled."
    )
    stalled_no_progress_seconds: int = Field(
        5 * MINUTE, ge=1, description="A claimed push that moves no byte for this long is stalled."
    )
    sweep_seconds: float = Field(
        2, gt=0, description="How often the beat looks for due jobs and stalled pushes, in seconds."
    )
    shutdown_seconds: int = Field(
        30, ge=1, description="How long a stopping worker lets its jobs run on before it hands them back."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or auto: console on a terminal."
    )

    @field_validator("secret_keys", mode="before")
    @classmethod
    def _read_secret_keys(cls, value: object) -> object:
        return read_secret_keys(value) if isinstance(value, str) else value

    @field_validator("environments", mode="before")
    @classmethod
    def _read_environments(cls, value: object) -> object:
        return read_environments(value) if isinstance(value, str) else value

    @field_validator("registry_networks", "source_networks", "webhook_networks", mode="before")
    @classmethod
    def _read_allowed_networks(cls, value: object) -> object:
        return read_networks(value, with_exceptions=True)

    @field_validator("gate_networks", "trusted_proxies", mode="before")
    @classmethod
    def _read_networks(cls, value: object) -> object:
        return read_networks(value, with_exceptions=False)

    @field_validator("registry_no_proxy", mode="before")
    @classmethod
    def _read_hosts(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("retry_delays", "probe_delays", "webhook_delays", mode="before")
    @classmethod
    def _read_delays(cls, value: object) -> object:
        return read_delays(value) if isinstance(value, str) else value

    @field_validator(
        "build_ca_bundle",
        "source_ssh_key",
        "source_ssh_known_hosts",
        "home_registry_ca",
        "build_index_url",
        "registry_proxy",
        "home_registry_password",
        "serving_dir",
        mode="before",
    )
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("build_ca_bundle", "source_ssh_key", "source_ssh_known_hosts", "home_registry_ca")
    @classmethod
    def _file_exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"names {value}, which is no file")
        return value

    @override
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _EnvironmentSource(settings_cls)

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if value and not value.startswith(REDIS_SCHEMES):
            raise ValueError(f"must begin with {', '.join(REDIS_SCHEMES[:-1])} or {REDIS_SCHEMES[-1]}")
        return value

    @field_validator("public_url", "api_url", "git_url", "calls_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @field_validator("heartbeat_seconds")
    @classmethod
    def _beats_within_lease(cls, value: float, info: ValidationInfo) -> float:
        # One beat may come late; were the lease over by then, every job would be taken over again and again.
        lease = info.data.get("lease_seconds")
        if lease is not None and value > lease / 2:
            raise ValueError(f"must be at most half of LONGSHORE_LEASE_SECONDS, which is {lease}; it is {value:g}")
        return value

    @property
    def resolved_database_url(self) -> str:
        """The database URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'longshore.db'}"

    @property
    def resolved_api_url(self) -> str:
        """Where the gate finds the API."""
        return self.api_url or f"http://127.0.0.1:{self.api_port}"

    @property
    def resolved_git_url(self) -> str:
        """Where everybody inside finds the git service."""
        return self.git_url or f"http://127.0.0.1:{self.git_port}"

    @property
    def repositories_dir(self) -> Path:
        """Where the git service keeps the hosted repositories."""
        return self.data_dir.absolute() / "repositories"

    @property
    def resolved_serving_dir(self) -> Path:
        """Where the sockets of running algorithms are."""
        return (self.serving_dir or self.data_dir / "serving").absolute()

    @property
    def store_dir(self) -> Path:
        """Where this machine's image store is."""
        return self.data_dir.absolute() / "images"

    @property
    def base_images(self) -> dict[str, str]:
        """Every environment that an algorithm may name, with the image it builds on."""
        return {"python3": self.base_image, "python3-1": self.base_image, **self.environments}

    def described(self) -> list[tuple[str, str, str, str]]:
        """Variable, meaning, default and present value of every setting; secrets are masked."""
        rows = []
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            is_masked = isinstance(extra, dict) and bool(extra.get("masked"))
            default = field.get_default(call_default_factory=True, validated_data={})
            present = getattr(self, name)
            rows.append(
                (
                    f"{PREFIX}{name.upper()}",
                    field.description or "",
                    shown(default),
                    masked(present) if is_masked else shown(present),
                )
            )
        return rows


def unknown_settings() -> list[str]:
    """Return a sentence for each `LONGSHORE_*` variable of this process that is no setting."""
    return unknown_variables(os.environ, [f"{PREFIX}{name.upper()}" for name in Settings.model_fields])


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: variables have invalid values or were renamed; the message has a line for each.
    """
    renamed = renamed_variables(os.environ)
    if renamed:
        raise SettingsError("\n".join(renamed))
    try:
        return Settings()
    except ValidationError as error:
        # The input is left out of the sentence: it may be a secret.
        lines = [
            f"LONGSHORE_{str(part['loc'][0]).upper()}: {part['msg'].removeprefix('Value error, ')}"
            for part in error.errors(include_input=False)
        ]
        raise SettingsError("\n".join(lines)) from None


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()
