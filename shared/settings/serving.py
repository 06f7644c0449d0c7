"""Settings of the queues serving and nodes, and of calls."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from shared.settings.parsing import read_networks

MEBIBYTE = 1024 * 1024
MAX_DRIFT_INTERVAL_SECONDS = 60.0


class ServingSettings(BaseSettings):
    """The part of `Settings` for running instances, nodes and calls."""

    pull_fallback: Literal["auto", "none", "registry", "store"] = Field(
        "auto",
        description="Where to pull from when the registry of the latest good push is gone: none (nowhere), registry (the next "
        "latest), store (the same, and versions that were never pushed run from the platform's own store), auto (as store "
        "while no registry was ever recorded, as registry from the first one on, also after the last one was deleted).",
    )

    drift_seconds: float = Field(
        6 * 60 * 60,
        ge=0,
        description="Interval at which registries are asked whether they still have the pushed images, in seconds; 0: never.",
    )
    repair_missing: bool = Field(False, description="Push missing images again, with the registry's own credentials.")

    serving: Literal["docker", "kubernetes"] = Field(
        "docker", description="Where instances run: docker (the engine of this machine) or kubernetes (KUBECONFIG)."
    )
    serving_dir: Path | None = Field(
        None,
        description="Directory of the sockets of instances: the same path for `longshore calls`, the serving worker and the "
        "Docker engine. Empty: serving in the data directory.",
    )
    serving_sockets: Literal["memory", "disk"] = Field(
        "memory",
        description="Where instances create their sockets: memory (a small tmpfs, which the serving worker must be allowed "
        "to mount) or disk (which an instance can fill; only for trusted owners).",
    )
    serving_network: str = Field(
        "longshore-serving",
        description="Docker network of instances, unless the algorithm's settings say `isolated` (no network). longshore-serving "
        "is created by Longshore and reaches neither this machine nor private networks.",
    )
    egress_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Private networks that builds and instances may reach, comma-separated, such as 10.1.0.0/16; also on "
        "Kubernetes. Empty: none. This machine, link-local and metadata addresses are never allowed.",
    )
    egress_rules: Literal["worker", "elsewhere"] = Field(
        "worker",
        description="What writes the firewall rules of Longshore's Docker networks: worker (each worker, which warns at its start "
        "if it cannot) or elsewhere (`longshore firewall`, or the operator).",
    )
    serving_memory_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=16 * MEBIBYTE,
        description="Memory limit of an instance, in bytes, including its /tmp.",
    )
    serving_cpus: float = Field(1.0, gt=0, description="CPU limit of an instance, in cores.")
    serving_pids: int = Field(256, ge=16, description="Process limit of an instance.")
    serving_tmp_bytes: int = Field(
        256 * MEBIBYTE,
        ge=MEBIBYTE,
        description="Size of an instance's /tmp, the only writable directory, in bytes.",
    )
    serving_idle_seconds: float = Field(
        300, gt=0, description="An instance without calls for this long is stopped, in seconds."
    )
    serving_start_seconds: float = Field(
        300, gt=0, description="How long an algorithm may take to load once its image is pulled, in seconds."
    )
    serving_max_instances: int = Field(
        32,
        ge=1,
        description="Maximum number of instances on one machine; the one that was idle longest is stopped for a new one.",
    )
    serving_max_instances_per_owner: int = Field(
        16,
        ge=1,
        description="Maximum number of instances of one owner; the one of its own that was idle longest is stopped for a new one.",
    )
    serving_starts_per_owner: int = Field(
        2,
        ge=1,
        description="How many instances of one owner may start at the same time; further calls wait. Keep it below "
        "the concurrency of the serving workers, so that one owner does not keep all of them busy.",
    )

    kubernetes_namespace: str = Field(
        "longshore",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Kubernetes namespace of the instances. Use one per installation.",
    )
    kubernetes_node_selector: str = Field(
        "algorithmia.com/role=algorithm-worker",
        pattern=r"^$|^[\w./-]+=[\w.-]*(,[\w./-]+=[\w.-]*)*$",
        description="Labels of the nodes for instances and for node refreshes: NAME=VALUE,NAME=VALUE. Empty: every node.",
    )

    node_restart_command: str = Field(
        "",
        description="Command that restarts a drained node; {node} is replaced by its name. Split into words as by a shell, but "
        "run without one. The restart must have been requested when the command ends.",
    )
    node_restart_url: SecretStr | None = Field(
        None,
        description='URL that restarts a drained node: receives a POST of {"node": NAME, "job_id": ID} and must answer 2xx. Obeys '
        "LONGSHORE_WEBHOOK_NETWORKS and LONGSHORE_WEBHOOK_ALLOW_HTTP. Used where no command is set.",
        json_schema_extra={"masked": True},
    )
    node_restart_secret: SecretStr | None = Field(
        None,
        description="Secret (whsec_…) that signs this POST as webhooks are signed. Empty: it is not signed.",
        json_schema_extra={"masked": True},
    )
    node_ready_seconds: float = Field(
        900, gt=0, description="How long a node may take to be ready again after its restart, in seconds."
    )
    node_drain_timeout_seconds: float = Field(
        3600,
        gt=0,
        description="How long draining a node may take, in seconds, including the time in which disruption budgets refuse evictions.",
    )

    calls_port: int = Field(8083, ge=0, le=65535, description="Port of `longshore calls` behind the gateway.")
    calls_url: str = Field(
        "", description="Where the gateway finds `longshore calls`. Empty: http://127.0.0.1 and the calls port."
    )
    calls_workers: int = Field(2, ge=1, le=64, description="Processes of `longshore calls`.")
    calls_threads: int = Field(96, ge=2, le=1024, description="Concurrent calls of one such process.")
    calls_per_owner: int = Field(
        64,
        ge=1,
        description="Concurrent calls by the keys of one owner, in each such process; those beyond are refused (429).",
    )
    call_max_bytes: int = Field(10 * MEBIBYTE, ge=1024, description="Maximum input of a call, in bytes.")
    call_result_max_bytes: int = Field(64 * MEBIBYTE, ge=1024, description="Maximum result of a call, in bytes.")
    pipeline_max_depth: int = Field(
        10,
        ge=0,
        le=100,
        description="How deep algorithms may call algorithms below a call that came from outside; 0: not at all.",
    )
    pipeline_max_parallel: int = Field(
        16,
        ge=1,
        le=256,
        description="How many calls an algorithm may have in progress at the same time while it works on one call. They count as "
        "concurrent calls of the first caller (LONGSHORE_CALLS_PER_OWNER).",
    )
    call_keep_days: float = Field(
        1, gt=0, description="How long the outcome of a call with output=void is kept, in days."
    )

    @field_validator("egress_networks", mode="before")
    @classmethod
    def _read_egress_networks(cls, value: object) -> object:
        return read_networks(value, with_exceptions=False)

    @field_validator("node_restart_command")
    @classmethod
    def _contains_node(cls, value: str) -> str:
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise ValueError(f"cannot be split into words: {error}") from None
        if words and not any("{node}" in word for word in words):
            raise ValueError("must contain {node}, which stands for the name of the node")
        return value

    @field_validator("node_restart_url")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("must begin with https:// or http://")
        return value

    @property
    def drift_tick_seconds(self) -> float:
        """Return the interval at which some of the due images are checked."""
        return min(MAX_DRIFT_INTERVAL_SECONDS, self.drift_seconds or MAX_DRIFT_INTERVAL_SECONDS)

    @property
    def kubernetes_node_labels(self) -> dict[str, str]:
        pairs = (part.partition("=") for part in self.kubernetes_node_selector.split(",") if part)
        return {name: value for name, _, value in pairs}

    @property
    def resolved_calls_url(self) -> str:
        return self.calls_url or f"http://127.0.0.1:{self.calls_port}"
