"""What a real API says to the same objects. Needs KUBECONFIG; what needs a kubelet too says so when it is skipped."""

from collections.abc import Callable

import pytest

from shared.errors import ErrorClass, WorkError
from shared.settings import Settings
from shared.stopping import StopSignal
from workers.serving.backend import Start
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes.backend import KubernetesBackend
from workers.serving.kubernetes.cluster import Cluster
from workers.serving.kubernetes.labels import label_value, version_name
from workers.serving.kubernetes.objects import deployment_of, isolated_policy, service_of

NewStart = Callable[..., Start]


def test_the_api_takes_every_object_as_it_is(real_cluster: Cluster, new_start: NewStart) -> None:
    start = new_start(network="isolated")
    strict = {"field_manager": "longshore", "field_validation": "Strict", "force": True, "dry_run": "All"}
    apply = "application/apply-patch+yaml"
    for patch, document in (
        (real_cluster.apps.patch_namespaced_deployment, deployment_of(start, Settings(), "0/test")),
        (real_cluster.core.patch_namespaced_service, service_of(start)),
        (real_cluster.networking.patch_namespaced_network_policy, isolated_policy()),
    ):
        taken = patch(document.metadata.name, real_cluster.namespace, document, _content_type=apply, **strict)
        assert taken.metadata.name == document.metadata.name


def test_a_pod_that_no_node_takes_is_said_and_cleared_away(
    real_cluster: Cluster, new_start: NewStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Settings(kubernetes_node_selector=f"longshore.io/no-node={label_value(real_cluster.namespace)}")
    start, backend = new_start(network="isolated"), KubernetesBackend(nowhere, real_cluster)
    with pytest.raises(WorkError, match="no room") as failed:
        backend.start(start, lambda _text: None, StopSignal())
    assert failed.value.error_class == ErrorClass.UNAVAILABLE
    name = version_name(start.serving.version_id)
    deployment = real_cluster.apps.read_namespaced_deployment(name, real_cluster.namespace)
    assert deployment.spec.replicas == 0
    assert backend.observe([start.serving]) == {}
    monkeypatch.setattr(backend_module, "YOUNG_SECONDS", -1)
    backend.clear([], set().intersection)
    left = [
        real_cluster.apps.list_namespaced_deployment(real_cluster.namespace).items,
        real_cluster.core.list_namespaced_service(real_cluster.namespace).items,
        real_cluster.core.list_namespaced_secret(real_cluster.namespace).items,
    ]
    assert left == [[], [], []]


def test_an_image_that_is_nowhere_is_said(real_cluster: Cluster, new_start: NewStart) -> None:
    if not real_cluster.core.list_node().items:
        pytest.skip("the cluster that KUBECONFIG names has no node, so no kubelet")
    backend = KubernetesBackend(Settings(kubernetes_node_selector=""), real_cluster)
    with pytest.raises(WorkError, match="could not pull"):
        backend.start(new_start(host="registry.invalid"), lambda _text: None, StopSignal())
