"""The class of all settings. They are read from `LONGSHORE_*` variables once; invalid ones stop the start."""

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from shared.settings.builds import BuildSettings
from shared.settings.git import GitSettings
from shared.settings.parsing import (
    PREFIX,
    is_service_link,
    masked,
    read_networks,
    read_secret_keys,
    renamed_variables,
    to_text,
    unknown_variables,
)
from shared.settings.serving import MEBIBYTE, ServingSettings
from shared.settings.workers import WorkerSettings

DATABASE_FILE = "longshore.db"
REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://")


class SettingsError(Exception):
    """Raised when a setting is invalid; the message names the variable and says what it must be."""


class _EnvironmentSource(EnvSettingsSource):
    """Reads the settings' variables, except those that Kubernetes set for a Service."""

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str) and is_service_link(f"{PREFIX}{field_name.upper()}", value):
            value = None
        return value, key, is_complex


class Settings(BuildSettings, WorkerSettings, ServingSettings, GitSettings):
    """All settings. `longshore settings` prints the descriptions."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    data_dir: Path = Field(
        Path("longshore-data"), description="Directory of this machine's database, repositories, images and keys."
    )
    database_url: str = Field(
        "",
        description="SQLAlchemy URL of the database: sqlite:///PATH on one machine, or postgresql+psycopg://USER:PASSWORD@HOST/NAME. "
        "Empty: longshore.db in the data directory.",
        json_schema_extra={"masked": True},
    )
    redis_url: str = Field(
        "",
        description="URL of the Redis for Celery messages: redis://HOST:PORT/DB, rediss:// or redis+socket://PATH. Empty: `longshore "
        "up` starts one on a private socket; other commands refuse to start.",
        json_schema_extra={"masked": True},
    )
    secret_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(
        default_factory=dict,
        description="Keys that encrypt stored passwords: ID:BASE64,ID:BASE64 with 32 bytes each. The first encrypts, all decrypt. "
        "Empty: the file secret-keys in the data directory, created by `longshore up`.",
        json_schema_extra={"masked": True},
    )

    host: str = Field("127.0.0.1", description="Address that the API, the git service and the gateway listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the gateway: the one address of everything.")
    api_port: int = Field(8081, ge=0, le=65535, description="Port of `longshore api` behind the gateway.")
    git_port: int = Field(8082, ge=0, le=65535, description="Port of `longshore git` behind the gateway.")
    api_workers: int = Field(2, ge=1, le=64, description="Processes of `longshore api`.")
    api_threads: int = Field(
        16,
        ge=2,
        le=256,
        description="Threads of each API process. At most half of them wait (Prefer: wait, event streams), and a quarter ask "
        "repositories and registries elsewhere; at most half of either for one owner.",
    )
    public_url: str = Field(
        "",
        description="Public address for links and clone URLs. Empty: http:// with LONGSHORE_HOST and LONGSHORE_PORT, or what a "
        "request on this machine names.",
    )
    api_url: str = Field("", description="Where the gateway finds the API. Empty: http://127.0.0.1 and the API port.")
    git_url: str = Field(
        "", description="Where API, workers and gateway find the git service. Empty: http://127.0.0.1 and the git port."
    )
    max_body_bytes: int = Field(2 * MEBIBYTE, ge=1024, description="Maximum body of an API request, in bytes.")
    body_timeout_seconds: float = Field(
        120,
        gt=0,
        description="How long a client may take to send the body of a request to the API or of a call, in seconds.",
    )
    client_min_bytes_per_second: float = Field(
        1024,
        gt=0,
        description="Rate at which the gateway's clients must send bodies and read responses, in bytes per second.",
    )
    client_grace_seconds: float = Field(
        10, gt=0, description="How long the gateway's clients may be slower than that, and pause, in seconds."
    )
    gateway_buffer_bytes: int = Field(
        512 * MEBIBYTE,
        ge=64 * MEBIBYTE,
        description="Maximum of bodies and responses that the gateway holds, mostly in temporary files; one client: a quarter.",
    )
    rate_limit_changes: int = Field(
        20_000,
        ge=0,
        description="Changing requests by the keys of one owner per minute, over all API processes; 0: no limit.",
    )
    rate_limit_reads: int = Field(
        60_000,
        ge=0,
        description="Reading requests by the keys of one owner per minute, in each API process; 0: no limit.",
    )
    rate_limit_calls: int = Field(
        60_000,
        ge=0,
        description="Calls by the keys of one owner per minute, in each process of `longshore calls`; 0: no limit.",
    )
    rate_limit_git: int = Field(
        600,
        ge=0,
        description="Requests of git clients by the keys of one owner per minute (a push has three); 0: no limit.",
    )
    rate_limit_unknown: int = Field(
        600, ge=0, description="Requests without a known key, per address and minute, in each process; 0: no limit."
    )
    max_keys_per_owner: int = Field(
        200, ge=1, description="How many keys an owner may have that are not revoked; administrators can make more."
    )
    max_queued_jobs_per_owner: int = Field(
        2_000,
        ge=1,
        description="How many jobs of an owner may be queued or running; its keys enqueue no more until some have ended.",
    )
    gateway_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.0/8", "::1/128"),
        description="Where the gateway is, comma-separated networks: API and git service believe it who a caller is.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks of load balancers in front of the gateway whose X-Forwarded-For is trusted, comma-separated.",
    )
    max_wait_seconds: int = Field(60, ge=0, le=600, description="Maximum of `Prefer: wait=N`, in seconds.")

    keepalive_seconds: float = Field(
        25, gt=0, description="Interval of keepalive comments in an idle event stream, in seconds."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of logged events."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or auto: console on a terminal."
    )

    @field_validator(
        "build_ca_bundle",
        "build_index_url",
        "home_registry_ca",
        "home_registry_password",
        "node_restart_secret",
        "node_restart_url",
        "registry_proxy",
        "serving_dir",
        "source_ssh_key",
        "source_ssh_known_hosts",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("secret_keys", mode="before")
    @classmethod
    def _read_secret_keys(cls, value: object) -> object:
        return read_secret_keys(value) if isinstance(value, str) else value

    @field_validator("gateway_networks", "trusted_proxies", mode="before")
    @classmethod
    def _read_networks(cls, value: object) -> object:
        return read_networks(value, with_exceptions=False)

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

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / DATABASE_FILE}"

    @property
    def resolved_public_url(self) -> str:
        # An address that is listened on for all addresses names no machine.
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - not bound
        return self.public_url.rstrip("/") or f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def resolved_api_url(self) -> str:
        return self.api_url or f"http://127.0.0.1:{self.api_port}"

    @property
    def resolved_git_url(self) -> str:
        return self.git_url or f"http://127.0.0.1:{self.git_port}"

    @property
    def repositories_dir(self) -> Path:
        return self.data_dir.absolute() / "repositories"

    @property
    def resolved_serving_dir(self) -> Path:
        return (self.serving_dir or self.data_dir / "serving").absolute()

    @property
    def store_dir(self) -> Path:
        return self.data_dir.absolute() / "images"

    def described(self) -> list[tuple[str, str, str, str]]:
        """Return variable, description, default and current value of every setting; secrets are masked."""
        rows = []
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            is_masked = isinstance(extra, dict) and bool(extra.get("masked"))
            present = getattr(self, name)
            rows.append(
                (
                    f"{PREFIX}{name.upper()}",
                    field.description or "",
                    to_text(field.get_default(call_default_factory=True, validated_data={})),
                    masked(present) if is_masked else to_text(present),
                )
            )
        return rows


def unknown_settings() -> dict[str, str]:
    """Return advice for each `LONGSHORE_*` variable of this process that is no setting."""
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
        # Without the input, which may be a secret.
        lines = [
            f"LONGSHORE_{str(part['loc'][0]).upper()}: {part['msg'].removeprefix('Value error, ')}"
            for part in error.errors(include_input=False)
        ]
        raise SettingsError("\n".join(lines)) from None


@cache
def settings() -> Settings:
    return load_settings()
