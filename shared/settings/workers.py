"""Settings of the workers: registries and pushes, the image store, webhooks, jobs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode

from shared.settings.builds import MINUTE
from shared.settings.parsing import existing_file, read_delays, read_networks
from shared.settings.serving import MEBIBYTE


class WorkerSettings(BaseSettings):
    """The part of `Settings` for the queues pushes and maintenance, and for all workers."""

    registry_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("0.0.0.0/0", "::/0"),
        description="Networks of allowed registry addresses, comma-separated; ! excludes one: 0.0.0.0/0,!10.0.0.0/8. "
        "Link-local and metadata addresses are never allowed.",
    )
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("0.0.0.0/0", "::/0"), description="Networks of allowed webhook targets, in the same form."
    )
    webhook_allow_http: bool = Field(False, description="Allow plain http:// webhook targets on other machines.")
    webhook_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (5, 30, 120, 600, 3600, 21600),
        description="Delays before each retry of a webhook delivery, in seconds, comma-separated.",
    )
    webhook_keep_days: float = Field(7, gt=0, description="How long finished deliveries are kept, in days.")

    transport: Literal["direct", "engine"] = Field(
        "direct",
        description="Default transport of registries: direct (Longshore uploads from its image store) or engine (the Docker "
        "engine uploads).",
    )
    uploads_per_push: int = Field(4, ge=1, le=64, description="Concurrent blob uploads of one push (transport direct).")
    uploads_per_registry: int = Field(
        16, ge=1, le=1024, description="Concurrent blob uploads of all workers of this machine to one registry."
    )
    registry_proxy: SecretStr | None = Field(
        None,
        description="HTTP proxy for registries without one of their own: http://[USER:PASSWORD@]HOST:PORT. The proxy resolves "
        "host names, so resolved addresses are not checked.",
        json_schema_extra={"masked": True},
    )
    registry_no_proxy: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "::1"),
        description="Registry hosts that are reached without that proxy, comma-separated; `.example.com` includes its "
        "subdomains.",
    )
    store_max_bytes: int = Field(
        50 * 1024 * MEBIBYTE,
        ge=64 * MEBIBYTE,
        description="Size in bytes to which garbage collection shrinks the image store on this machine's disk. Images that "
        "jobs need are kept even if it is larger.",
    )
    home_registry: str = Field(
        "",
        description="Registry that serves as the image store of all workers: HOST[:PORT]/PATH. Empty: each machine has an "
        "image store in its data directory.",
    )
    home_registry_username: str = Field("", description="Username for the home registry.")
    home_registry_password: SecretStr | None = Field(
        None, description="Password for the home registry.", json_schema_extra={"masked": True}
    )
    home_registry_ca: Path | None = Field(
        None, description="PEM file of the certificate authority of the home registry."
    )

    worker_concurrency: int = Field(2, ge=1, le=256, description="Concurrent jobs of one worker.")
    worker_health_port: int = Field(
        0, ge=0, le=65535, description="Port for a worker's /healthz and /readyz on LONGSHORE_HOST; 0: none."
    )
    lease_seconds: int = Field(60, ge=3, description="How long a lease lasts without a heartbeat, in seconds.")
    heartbeat_seconds: float = Field(
        15,
        gt=0,
        validate_default=True,
        description="How often a running job renews its lease, in seconds: at most half of the lease.",
    )
    stuck_seconds: int = Field(
        45 * MINUTE, ge=60, description="A job without any progress for this long loses its lease, in seconds."
    )
    retry_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (2, 8, 30, 120, 600),
        description="Delays before each retry after a transient failure, in seconds, comma-separated; jitter is added.",
    )
    registry_pushes: int = Field(
        16,
        ge=1,
        le=10_000,
        description="Concurrent pushes to a registry that has no max_pushes of its own.",
    )
    pause_after_failures: int = Field(
        5,
        ge=1,
        description="Consecutive failures (unreachable, or recorded credentials refused) after which a registry is paused.",
    )
    probe_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (30, 60, 120, 300, 900),
        min_length=1,
        description="Delays before each probe of a paused registry, in seconds, comma-separated.",
    )
    max_losses: int = Field(5, ge=1, description="How many times a job may lose its worker before it fails.")
    unavailable_delay_seconds: float = Field(
        15, gt=0, description="Delay before a job that lacks an engine or disk space is retried, in seconds."
    )
    stalled_unclaimed_seconds: int = Field(
        60,
        ge=1,
        description="A due push that is not claimed for this long, with no live worker, is stalled, in seconds.",
    )
    stalled_no_progress_seconds: int = Field(
        5 * MINUTE, ge=1, description="A running push that uploads no byte for this long is stalled, in seconds."
    )
    sweep_seconds: float = Field(
        2, gt=0, description="Interval of the sweep for due jobs and stalled pushes, in seconds."
    )
    shutdown_seconds: int = Field(
        30, ge=1, description="How long a stopping worker lets its jobs run before it releases them, in seconds."
    )

    @field_validator("registry_networks", "webhook_networks", mode="before")
    @classmethod
    def _read_allowed_networks(cls, value: object) -> object:
        return read_networks(value, with_exceptions=True)

    @field_validator("registry_no_proxy", mode="before")
    @classmethod
    def _read_hosts(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("retry_delays", "probe_delays", "webhook_delays", mode="before")
    @classmethod
    def _read_delays(cls, value: object) -> object:
        return read_delays(value) if isinstance(value, str) else value

    @field_validator("home_registry_ca")
    @classmethod
    def _file_exists(cls, value: Path | None) -> Path | None:
        return existing_file(value)

    @field_validator("heartbeat_seconds")
    @classmethod
    def _beats_within_lease(cls, value: float, info: ValidationInfo) -> float:
        # One heartbeat may be late. If the lease expired by then, every job would be taken over again and again.
        lease = info.data.get("lease_seconds")
        if lease is not None and value > lease / 2:
            raise ValueError(f"must be at most half of LONGSHORE_LEASE_SECONDS, which is {lease}; it is {value:g}")
        return value
