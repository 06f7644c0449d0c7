"""The nodes of the simulated API, which is looked at more often than a real one."""

import pytest

from shared.settings import Settings
from workers.refreshing.kubernetes import emptying, nodes
from workers.refreshing.kubernetes.fleet import KubernetesFleet
from workers.serving.kubernetes.cluster import Cluster


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptying, "POLL_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(emptying, "REFUSED_SECONDS", 0.01)
    monkeypatch.setattr(nodes, "POLL_INTERVAL_SECONDS", 0.01)


@pytest.fixture
def fleet(cluster: Cluster) -> KubernetesFleet:
    return KubernetesFleet(Settings(), cluster)


@pytest.fixture
def hasty_fleet(cluster: Cluster) -> KubernetesFleet:
    """Waits for nothing longer than a second."""
    return KubernetesFleet(Settings(node_ready_seconds=1, node_drain_timeout_seconds=1), cluster)
