"""Node pools on the simulated API, with short poll intervals."""

import pytest

from shared.settings import Settings
from workers.kubernetes.cluster import Cluster
from workers.nodes.kubernetes import drain, nodes
from workers.nodes.kubernetes.node_pool import KubernetesNodePool


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "POLL_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(drain, "RETRY_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(nodes, "POLL_INTERVAL_SECONDS", 0.01)


@pytest.fixture
def pool(cluster: Cluster) -> KubernetesNodePool:
    return KubernetesNodePool(Settings(), cluster)


@pytest.fixture
def hasty_pool(cluster: Cluster) -> KubernetesNodePool:
    """A pool whose timeouts are one second."""
    return KubernetesNodePool(Settings(node_ready_seconds=1, node_drain_timeout_seconds=1), cluster)
