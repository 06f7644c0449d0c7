"""The settings of executions: where images are pulled from, how calls are answered, and what running images may use."""

import shlex
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

MEBIBYTE = 1024 * 1024
MAX_DRIFT_TICK = 60.0


class ServingSettings(BaseSettings):
    """The part of `Settings` that executions go by."""

    pull_fallback: Literal["none", "registry", "store"] = Field(
        "registry",
        description="Where executions pull from when the registry of the latest good push is gone: none (nowhere), registry "
        "(the next latest), store (the same, and what was never asked to go to a registry runs from the platform's own store).",
    )

    drift_seconds: float = Field(
        6 * 60 * 60,
        ge=0,
        description="How often each registry is asked whether it still has what executions rely on, in seconds; 0: never.",
    )
    repair_missing: bool = Field(
        False, description="Push again what is gone from its registry, with the registry's own credentials."
    )

    serving: Literal["docker", "kubernetes"] = Field(
        "docker", description="What runs algorithms: docker (the engine of this machine) or kubernetes (KUBECONFIG)."
    )
    serving_dir: Path | None = Field(
        None,
        description="Where the sockets of running algorithms are: the same path for the calls, the serving worker and the "
        "Docker engine. Empty: serving in the data directory.",
    )
    serving_network: str = Field(
        "bridge",
        description="Docker network of algorithms whose settings do not say `isolated` (those have none at all).",
    )
    serving_memory_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=16 * MEBIBYTE,
        description="Memory limit of a running algorithm, in bytes, its /tmp included.",
    )
    serving_cpus: float = Field(1.0, gt=0, description="CPU limit of a running algorithm, in cores.")
    serving_pids: int = Field(256, ge=16, description="Process limit of a running algorithm.")
    serving_tmp_bytes: int = Field(
        256 * MEBIBYTE,
        ge=MEBIBYTE,
        description="Size of a running algorithm's /tmp, the one place it can write to, in bytes.",
    )
    serving_idle_seconds: float = Field(
        300, gt=0, description="A running algorithm that nobody calls for so long is stopped, in seconds."
    )
    serving_start_seconds: float = Field(
        300, gt=0, description="How long an algorithm may take to load once its image is pulled, in seconds."
    )
    serving_max_instances: int = Field(
        32, ge=1, description="Algorithms that run on one machine at once; the one that rested longest makes room."
    )

    kubernetes_namespace: str = Field(
        "longshore",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Namespace in which algorithms run on Kubernetes: one installation's own.",
    )
    kubernetes_node_selector: str = Field(
        "algorithmia.com/role=algorithm-worker",
        pattern=r"^$|^[\w./-]+=[\w.-]*(,[\w./-]+=[\w.-]*)*$",
        description="Labels of the nodes that algorithms run on and that are refreshed, NAME=VALUE,NAME=VALUE. Empty: every node.",
    )

    node_restart_command: str = Field(
        "",
        description="Command with which a worker restarts a node that was emptied to pull afresh, with {node} for its name: "
        "words as in a shell, but run without one. It must have asked for the restart when it ends.",
    )
    node_restart_url: SecretStr | None = Field(
        None,
        description='Where the same is asked for by a POST of {"node": NAME, "job_id": ID}; any 2xx takes it. Obeys '
        "LONGSHORE_WEBHOOK_NETWORKS and LONGSHORE_WEBHOOK_ALLOW_HTTP. Used where no command is set.",
        json_schema_extra={"masked": True},
    )
    node_restart_secret: SecretStr | None = Field(
        None,
        description="Secret (whsec_…) that signs it, as webhooks are signed. Empty: it is not signed.",
        json_schema_extra={"masked": True},
    )
    node_ready_seconds: float = Field(
        900, gt=0, description="How long a node may take to be ready again after its restart, in seconds."
    )
    node_drain_timeout_seconds: float = Field(
        3600,
        gt=0,
        description="How long emptying a node may take, in seconds: so long disruption budgets may refuse evictions, and pods end.",
    )

    calls_port: int = Field(8083, ge=0, le=65535, description="Port of `longshore calls` behind the gate.")
    calls_url: str = Field(
        "", description="Where the gate finds `longshore calls`. Empty: http://127.0.0.1 and the calls port."
    )
    calls_workers: int = Field(2, ge=1, le=64, description="Processes of `longshore calls`.")
    calls_threads: int = Field(
        64, ge=2, le=1024, description="Calls of algorithms that one such process has under way at once."
    )
    call_max_bytes: int = Field(10 * MEBIBYTE, ge=1024, description="Largest input of a call, in bytes.")
    call_result_max_bytes: int = Field(
        64 * MEBIBYTE, ge=1024, description="Largest answer of an algorithm that is handed on, in bytes."
    )
    call_keep_days: float = Field(
        1, gt=0, description="How long one can ask how a call with output=void ended, in days."
    )

    @field_validator("node_restart_command")
    @classmethod
    def _names_the_node(cls, value: str) -> str:
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise ValueError(f"cannot be read as words of a shell: {error}") from None
        if words and not any("{node}" in word for word in words):
            raise ValueError("must have {node} where the node's name goes")
        return value

    @field_validator("node_restart_url", "node_restart_secret", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("node_restart_url")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("must begin with https:// or http://")
        return value

    @property
    def drift_tick_seconds(self) -> float:
        """How often some of the images that are due are asked for."""
        return min(MAX_DRIFT_TICK, self.drift_seconds or MAX_DRIFT_TICK)

    @property
    def kubernetes_node_labels(self) -> dict[str, str]:
        """The labels of the nodes that algorithms run on."""
        pairs = (part.partition("=") for part in self.kubernetes_node_selector.split(",") if part)
        return {name: value for name, _, value in pairs}

    @property
    def resolved_calls_url(self) -> str:
        """Where the gate finds the calls."""
        return self.calls_url or f"http://127.0.0.1:{self.calls_port}"
