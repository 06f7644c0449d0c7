"""The simulated API for everybody, and the cluster that KUBECONFIG names where there is one."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.client import V1Namespace, V1ObjectMeta

from shared.models import Registry, Serving
from shared.registry.credentials import Credentials
from shared.settings import Settings
from tests.kubernetes import kubelets
from tests.kubernetes.simulated import SimulatedApi, serve
from workers.serving.backend import Start
from workers.serving.kubernetes.backend import KubernetesBackend
from workers.serving.kubernetes.cluster import Cluster

NAMED = os.environ.get("KUBECONFIG")
"""Kept before any test points the variable to the simulated API."""
DIGEST = "sha256:" + "5" * 64


@pytest.fixture
def api() -> SimulatedApi:
    return SimulatedApi(kubelet=kubelets.runs)


@pytest.fixture
def cluster(api: SimulatedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The simulated API, found as a real one is."""
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


@pytest.fixture
def real_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A namespace of its own on the cluster that KUBECONFIG names."""
    if NAMED is None:
        pytest.skip("KUBECONFIG names no cluster")
    monkeypatch.setenv("KUBECONFIG", NAMED)
    cluster = Cluster.connect(f"longshore-{uuid.uuid4().hex[:8]}")
    cluster.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=cluster.namespace)))
    yield cluster
    cluster.core.delete_namespace(cluster.namespace, _preload_content=False).release_conn()


@pytest.fixture
def new_start() -> Callable[..., Start]:
    """Starts of one version, each a serving of its own."""
    version_id, registry_id = str(uuid.uuid4()), str(uuid.uuid4())

    def make(
        *,
        password: str | None = "open-sesame",  # noqa: S107 - no secret
        network: str = "full",
        host: str = "registry.example",
        username: str = "reader",
    ) -> Start:
        serving = Serving(
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
        return Start(serving, "ann/fit", "c0ffee", registry, credentials)

    return make
