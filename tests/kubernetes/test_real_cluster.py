"""The same objects on a real API, with the rights of the account in the manifests and no others.

Needs KUBECONFIG; a test that needs a kubelet too says so when it is skipped.
"""

import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from kubernetes.client import (
    V1Capabilities,
    V1Container,
    V1Deployment,
    V1DeploymentSpec,
    V1LabelSelector,
    V1Node,
    V1ObjectMeta,
    V1PodDisruptionBudget,
    V1PodDisruptionBudgetSpec,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1SeccompProfile,
    V1SecurityContext,
)
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.settings import Settings
from tests.kubernetes import real
from workers.kubernetes.cluster import Cluster, name_of
from workers.nodes.kubernetes.cordon import cordon_state_of
from workers.nodes.kubernetes.node_pool import KubernetesNodePool
from workers.serving.backend import InstanceSpec
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes.backend import KubernetesBackend
from workers.serving.kubernetes.labels import label_value, version_name
from workers.serving.kubernetes.objects import deployment_of, isolated_policy, service_of

NewSpec = Callable[..., InstanceSpec]


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


def test_the_api_takes_every_object_as_it_is(account_cluster: Cluster, new_spec: NewSpec) -> None:
    start = new_spec(network="isolated")
    strict: dict[str, Any] = {
        "field_manager": "longshore",
        "field_validation": "Strict",
        "force": True,
        "dry_run": "All",
    }
    apply = "application/apply-patch+yaml"
    for patch, document in (
        (account_cluster.apps.patch_namespaced_deployment, deployment_of(start, Settings(), "0/test")),
        (account_cluster.core.patch_namespaced_service, service_of(start)),
        (account_cluster.networking.patch_namespaced_network_policy, isolated_policy()),
    ):
        taken = patch(str(document.metadata.name), account_cluster.namespace, document, _content_type=apply, **strict)
        assert taken.metadata.name == document.metadata.name


def test_a_pod_that_no_node_takes_is_said_and_cleared_away(
    account_cluster: Cluster, new_spec: NewSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Settings(kubernetes_node_selector=f"longshore.io/no-node={label_value(account_cluster.namespace)}")
    start, backend = new_spec(network="isolated"), KubernetesBackend(nowhere, account_cluster)
    with pytest.raises(WorkError, match="no capacity") as failed:
        backend.start(start, lambda _text: None, CancelToken())
    assert failed.value.error_class == ErrorClass.UNAVAILABLE
    name = version_name(start.instance.version_id)
    deployment = account_cluster.apps.read_namespaced_deployment(name, account_cluster.namespace)
    assert deployment.spec.replicas == 0
    assert backend.observe([start.instance]) == {}
    backend.stop(start.instance)
    monkeypatch.setattr(backend_module, "ORPHAN_GRACE_SECONDS", -1)
    backend.remove_orphans([], set().intersection)
    left = [
        account_cluster.apps.list_namespaced_deployment(account_cluster.namespace).items,
        account_cluster.core.list_namespaced_service(account_cluster.namespace).items,
        account_cluster.core.list_namespaced_secret(account_cluster.namespace).items,
    ]
    assert left == [[], [], []]


def test_an_image_that_is_nowhere_is_said(real_cluster: Cluster, account_cluster: Cluster, new_spec: NewSpec) -> None:
    if not real_cluster.core.list_node().items:
        pytest.skip("the cluster that KUBECONFIG names has no node, so no kubelet")
    backend = KubernetesBackend(Settings(kubernetes_node_selector=""), account_cluster)
    with pytest.raises(WorkError, match="could not pull") as failed:
        backend.start(new_spec(host="registry.invalid"), lambda _text: None, CancelToken())
    assert failed.value.error_class == ErrorClass.TRANSIENT


APP = {"app": "to-be-evicted"}
RUNS_AS = 65532
EMPTIES_A_NODE = "LONGSHORE_TEST_EMPTIES_A_NODE"


def test_a_node_is_emptied_as_its_budgets_allow_and_takes_pods_again(real_cluster: Cluster) -> None:
    """Runs only on request, because it evicts all pods of one node."""
    if not os.environ.get(EMPTIES_A_NODE):
        pytest.skip(f"{EMPTIES_A_NODE} is not set, so no node of this cluster may be emptied")
    node, image = _node_with_its_pause_image(real_cluster)
    pool, name = KubernetesNodePool(Settings(), real_cluster), str(node.metadata.name)
    refused_for = pool.plan(name).refused_for
    if refused_for:
        pytest.skip(f"node {name} has pods that no controller would replace: {', '.join(refused_for)}")
    pod = _run_with_a_budget(real_cluster, node, image)
    budget = f"{real_cluster.namespace}/closed"
    plan = pool.plan(name)
    assert f"{real_cluster.namespace}/{pod}" in plan.evicted
    assert budget in plan.waits_for
    messages: list[str] = []

    def say(text: str) -> None:
        if pod in text and "evictions" in text and not any("evictions" in before for before in messages):
            now = real_cluster.core.read_node(name)
            assert now.spec.unschedulable
            assert cordon_state_of(now) is not None
            change = {"spec": {"maxUnavailable": 1}}
            real_cluster.policy.patch_namespaced_pod_disruption_budget(
                "closed", real_cluster.namespace, change, _content_type="application/merge-patch+json"
            )
        messages.append(text)

    pool.refresh(name, "a-job", None, say, CancelToken())
    assert any("disruption budget closed" in text for text in messages)
    left = real_cluster.core.list_namespaced_pod(real_cluster.namespace, label_selector="app=to-be-evicted").items
    assert pod not in [one.metadata.name for one in left]
    now = real_cluster.core.read_node(name)
    assert not now.spec.unschedulable
    assert cordon_state_of(now) is None
    assert pool.uncordon("a-job") == []


def _node_with_its_pause_image(cluster: Cluster) -> tuple[V1Node, str]:
    """Return a node and its pause image: no registry is needed, and every kubelet has one."""
    for node in cluster.core.list_node().items:
        names = [name for image in node.status.images or [] for name in image.names or [] if "/pause:" in name]
        if names and not node.spec.unschedulable:
            return node, names[0]
    pytest.skip("the cluster that KUBECONFIG names has no node that takes pods and lists a pause image")


def _run_with_a_budget(cluster: Cluster, node: V1Node, image: str) -> str:
    """Run one pod on the node, with a budget that allows no eviction; return its name."""
    host = "kubernetes.io/hostname"
    template = V1PodTemplateSpec(
        metadata=V1ObjectMeta(labels=APP),
        spec=V1PodSpec(
            containers=[
                V1Container(
                    name="main",
                    image=image,
                    image_pull_policy="IfNotPresent",
                    security_context=V1SecurityContext(
                        allow_privilege_escalation=False, capabilities=V1Capabilities(drop=["ALL"])
                    ),
                )
            ],
            security_context=V1PodSecurityContext(
                run_as_user=RUNS_AS, run_as_non_root=True, seccomp_profile=V1SeccompProfile(type="RuntimeDefault")
            ),
            node_selector={host: node.metadata.labels[host]},
            termination_grace_period_seconds=1,
        ),
    )
    selector = V1LabelSelector(match_labels=APP)
    cluster.policy.create_namespaced_pod_disruption_budget(
        cluster.namespace,
        V1PodDisruptionBudget(
            metadata=V1ObjectMeta(name="closed"), spec=V1PodDisruptionBudgetSpec(selector=selector, max_unavailable=0)
        ),
    )
    cluster.apps.create_namespaced_deployment(
        cluster.namespace,
        V1Deployment(
            metadata=V1ObjectMeta(name="app"), spec=V1DeploymentSpec(replicas=1, selector=selector, template=template)
        ),
    )
    seen = Watch().stream(cluster.policy.list_namespaced_pod_disruption_budget, cluster.namespace, timeout_seconds=120)
    assert any(event["object"].status and event["object"].status.current_healthy == 1 for event in seen)
    (pod,) = cluster.core.list_namespaced_pod(cluster.namespace, label_selector="app=to-be-evicted").items
    return str(pod.metadata.name)
