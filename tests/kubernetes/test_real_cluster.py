"""What a real API says to the same objects, asked as the account of the manifests with its rights and no others.

Needs KUBECONFIG; what needs a kubelet too says so when it is skipped.
"""

from collections.abc import Callable
from http import HTTPStatus

import pytest
from kubernetes.client.exceptions import ApiException

from shared.errors import ErrorClass, WorkError
from shared.settings import Settings
from shared.stopping import StopSignal
from tests.kubernetes import real
from workers.serving.backend import Start
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes.backend import KubernetesBackend
from workers.serving.kubernetes.cluster import Cluster
from workers.serving.kubernetes.labels import label_value, name_of, version_name
from workers.serving.kubernetes.objects import deployment_of, isolated_policy, service_of

NewStart = Callable[..., Start]


def test_the_api_takes_the_manifest_of_who_may_call(real_cluster: Cluster) -> None:
    real.make(real_cluster.core.api_client, real_cluster.namespace, "callers.yaml")
    policies = real_cluster.networking.list_namespaced_network_policy(real_cluster.namespace).items
    assert [name_of(policy) for policy in policies] == ["longshore-callers"]


def test_the_account_may_do_nothing_else(account_cluster: Cluster) -> None:
    core, namespace = account_cluster.core, account_cluster.namespace
    for forbidden in (
        core.list_node,
        lambda: core.list_namespaced_secret("kube-system"),
        lambda: core.list_namespaced_config_map(namespace),
        lambda: core.read_namespaced_pod_log("any", namespace),
        lambda: core.delete_namespaced_pod("any", namespace),
    ):
        with pytest.raises(ApiException) as refused:
            forbidden()
        assert refused.value.status == HTTPStatus.FORBIDDEN


def test_the_api_takes_every_object_as_it_is(account_cluster: Cluster, new_start: NewStart) -> None:
    start = new_start(network="isolated")
    strict = {"field_manager": "longshore", "field_validation": "Strict", "force": True, "dry_run": "All"}
    apply = "application/apply-patch+yaml"
    for patch, document in (
        (account_cluster.apps.patch_namespaced_deployment, deployment_of(start, Settings(), "0/test")),
        (account_cluster.core.patch_namespaced_service, service_of(start)),
        (account_cluster.networking.patch_namespaced_network_policy, isolated_policy()),
    ):
        taken = patch(document.metadata.name, account_cluster.namespace, document, _content_type=apply, **strict)
        assert taken.metadata.name == document.metadata.name


def test_a_pod_that_no_node_takes_is_said_and_cleared_away(
    account_cluster: Cluster, new_start: NewStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Settings(kubernetes_node_selector=f"longshore.io/no-node={label_value(account_cluster.namespace)}")
    start, backend = new_start(network="isolated"), KubernetesBackend(nowhere, account_cluster)
    with pytest.raises(WorkError, match="no room") as failed:
        backend.start(start, lambda _text: None, StopSignal())
    assert failed.value.error_class == ErrorClass.UNAVAILABLE
    name = version_name(start.serving.version_id)
    deployment = account_cluster.apps.read_namespaced_deployment(name, account_cluster.namespace)
    assert deployment.spec.replicas == 0
    assert backend.observe([start.serving]) == {}
    backend.stop(start.serving)
    monkeypatch.setattr(backend_module, "YOUNG_SECONDS", -1)
    backend.clear([], set().intersection)
    left = [
        account_cluster.apps.list_namespaced_deployment(account_cluster.namespace).items,
        account_cluster.core.list_namespaced_service(account_cluster.namespace).items,
        account_cluster.core.list_namespaced_secret(account_cluster.namespace).items,
    ]
    assert left == [[], [], []]


def test_an_image_that_is_nowhere_is_said(real_cluster: Cluster, account_cluster: Cluster, new_start: NewStart) -> None:
    if not real_cluster.core.list_node().items:
        pytest.skip("the cluster that KUBECONFIG names has no node, so no kubelet")
    backend = KubernetesBackend(Settings(kubernetes_node_selector=""), account_cluster)
    with pytest.raises(WorkError, match="could not pull") as failed:
        backend.start(new_start(host="registry.invalid"), lambda _text: None, StopSignal())
    assert failed.value.error_class == ErrorClass.TRANSIENT
