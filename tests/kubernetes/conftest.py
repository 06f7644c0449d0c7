"""Fixtures for the simulated API, and for the real cluster that KUBECONFIG names."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.db.models import Instance, Registry
from shared.registry.credentials import Credentials
from shared.settings import Settings
from tests.kubernetes import kubelets, real
from tests.kubernetes.real_registry import NamedRegistry
from tests.kubernetes.simulated import SimulatedApi, serve
from workers.kubernetes.cluster import Cluster
from workers.serving.backend import InstanceSpec
from workers.serving.kubernetes.backend import KubernetesBackend

NAMED = os.environ.get("KUBECONFIG")
"""Read before any test points the variable to the simulated API."""
REGISTRY = NamedRegistry.named()
"""Read before any test removes the variables."""
DIGEST = "sha256:" + "5" * 64


@pytest.fixture
def api() -> SimulatedApi:
    return SimulatedApi(kubelet=kubelets.runs)


@pytest.fixture
def cluster(api: SimulatedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The simulated API, found by KUBECONFIG as a real one is."""
    server = serve(api)
    port = server.server_address[1]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "simulated",
        "contexts": [{"name": "simulated", "context": {"cluster": "simulated", "user": "longshore"}}],
        "clusters": [{"name": "simulated", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "longshore", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield Cluster.connect("algorithms")
    server.shutdown()
    server.server_close()


@pytest.fixture
def backend(cluster: Cluster) -> KubernetesBackend:
    return KubernetesBackend(Settings(), cluster)


@pytest.fixture(scope="session")
def named_cluster() -> str:
    """The path of the KUBECONFIG that the tests were started with."""
    if NAMED is None:
        pytest.skip("set KUBECONFIG to a cluster on which this may make namespaces")
    return NAMED


@pytest.fixture(scope="session")
def named_registry(named_cluster: str) -> NamedRegistry:  # noqa: ARG001 - skips without a cluster
    """The registry that the operator names for the cluster's nodes."""
    if REGISTRY is None:
        pytest.skip(
            "set LONGSHORE_TEST_REGISTRY (host:port), LONGSHORE_TEST_REGISTRY_USERNAME and "
            "LONGSHORE_TEST_REGISTRY_PASSWORD to a registry that the nodes of the cluster can pull from"
        )
    return REGISTRY


@pytest.fixture
def real_cluster(named_cluster: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster that KUBECONFIG names, with its rights, and a new namespace with Longshore's manifests."""
    monkeypatch.setenv("KUBECONFIG", named_cluster)
    cluster = Cluster.connect(f"longshore-{uuid.uuid4().hex[:8]}")
    # Without callers.yaml: it allows only `longshore calls`, and the tests call from outside.
    real.make(cluster.core.api_client, cluster.namespace, "namespace.yaml", "rights.yaml")
    yield cluster
    deleted: Any = cluster.core.delete_namespace(cluster.namespace, _preload_content=False)
    deleted.release_conn()


@pytest.fixture
def account_config(real_cluster: Cluster, tmp_path: Path) -> Path:
    """A KUBECONFIG with the rights of Longshore's service account."""
    path = tmp_path / "account-kubeconfig"
    path.write_text(json.dumps(real.kubeconfig_of_the_account(real_cluster.core.api_client, real_cluster.namespace)))
    return path


@pytest.fixture
def account_cluster(real_cluster: Cluster, account_config: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The same cluster and namespace, with the rights of Longshore's service account."""
    monkeypatch.setenv("KUBECONFIG", str(account_config))
    return Cluster.connect(real_cluster.namespace)


@pytest.fixture
def new_spec() -> Callable[..., InstanceSpec]:
    """Make specs of one version, each with a new instance."""
    version_id, registry_id = str(uuid.uuid4()), str(uuid.uuid4())

    def make(
        *,
        password: str | None = "open-sesame",  # noqa: S107 - no secret
        network: str = "full",
        host: str = "registry.example",
        username: str = "reader",
    ) -> InstanceSpec:
        instance = Instance(
            id=str(uuid.uuid4()),
            owner="ann",
            algorithm_id=str(uuid.uuid4()),
            version_id=version_id,
            registry_id=registry_id,
            image=f"{host}/ann/fit@{DIGEST}",
            digest=DIGEST,
            network=network,
        )
        registry = Registry(id=registry_id, registry_url=host, name="production", plain_http=False)
        credentials = Credentials(username, password) if password else None
        return InstanceSpec(instance, "ann/fit", "c0ffee", registry, credentials)

    return make
