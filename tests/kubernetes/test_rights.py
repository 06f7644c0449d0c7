"""The manifests allow the requests that the code makes, and nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.cancellation import CancelToken
from shared.settings import Settings
from tests.kubernetes.nodes.worker_nodes import put_node, put_pod, reboot
from tests.kubernetes.simulated import SimulatedApi
from workers.kubernetes.cluster import Cluster
from workers.nodes.kubernetes.node_pool import KubernetesNodePool
from workers.serving.backend import InstanceSpec
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes.backend import KubernetesBackend

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"


def documents_of(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def documents(kind: str) -> Iterator[Any]:
    for path in sorted(MANIFESTS.glob("*.yaml")):
        yield from (one for one in documents_of(path) if one["kind"] == kind)


BINDINGS = [
    ("RoleBinding", "longshore-serving", "longshore"),
    ("RoleBinding", "longshore-nodes", "longshore-nodes"),
    ("ClusterRoleBinding", "longshore-nodes", "longshore-nodes"),
]
Right = tuple[str, str, str]
"""Group, resource and verb."""


def given(kind: str, name: str) -> set[Right]:
    return {
        (group, resource, verb)
        for role in documents(kind)
        if role["metadata"]["name"] == name
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(api: SimulatedApi) -> set[Right]:
    return {(one.group, one.resource, one.verb) for one in api.requests}


def test_every_call_of_the_api_is_allowed_and_nothing_else(
    api: SimulatedApi,
    backend: KubernetesBackend,
    new_spec: Callable[..., InstanceSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = new_spec(network="isolated")
    backend.start(new_spec(), lambda _text: None, CancelToken())
    backend.start(start, lambda _text: None, CancelToken())
    backend.observe([start.instance])
    backend.stop(start.instance)
    monkeypatch.setattr(backend_module, "ORPHAN_GRACE_SECONDS", -1)
    backend.remove_orphans([], set().intersection)
    # The API asks for `create` as well where an apply makes the object.
    made = {(group, resource, "create") for group, resource, verb in asked(api) if verb == "patch"}
    assert asked(api) | made == given("Role", "longshore-serving")
    assert all(one.namespaced for one in api.requests)


def test_every_call_about_nodes_is_allowed_and_nothing_else(api: SimulatedApi, cluster: Cluster) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    pool = KubernetesNodePool(Settings(), cluster)
    pool.node_names()
    pool.plan("n1")
    pool.refresh("n1", "job", lambda name: reboot(api, name), lambda _text: None, CancelToken())
    pool.uncordon("job")
    assert asked(api) == given("ClusterRole", "longshore-nodes")


def test_the_account_of_refreshes_may_do_what_they_need_and_nothing_else(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: Callable[..., InstanceSpec]
) -> None:
    start = new_spec()
    backend.start(start, lambda _text: None, CancelToken())
    api.requests.clear()
    backend.restart(start.instance)
    assert asked(api) == given("Role", "longshore-nodes")


def test_no_right_reaches_beyond_the_namespace_but_those_over_nodes() -> None:
    kinds = ("ClusterRole", "ClusterRoleBinding")
    beyond = {path.name for path in MANIFESTS.glob("*.yaml") if any(one["kind"] in kinds for one in documents_of(path))}
    assert beyond == {"nodes.yaml"}


@pytest.mark.parametrize(("kind", "role", "account"), BINDINGS)
def test_each_kind_of_worker_has_the_rights_of_its_own_account(kind: str, role: str, account: str) -> None:
    assert {one["metadata"]["name"] for one in documents("ServiceAccount")} == {"longshore", "longshore-nodes"}
    (binding,) = (one for one in documents(kind) if one["metadata"]["name"] == role)
    assert binding["roleRef"]["name"] == role
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "longshore"}]


def test_a_pod_of_another_namespace_with_the_labels_calls_no_algorithm() -> None:
    (policy,) = documents("NetworkPolicy")
    (rule,) = policy["spec"]["ingress"]
    (source,) = rule["from"]
    assert source["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "longshore"}}
    assert source["podSelector"]["matchLabels"] == {"app.kubernetes.io/part-of": "longshore"}
    (component,) = source["podSelector"]["matchExpressions"]
    assert (component["operator"], component["values"]) == ("In", ["calls", "serving"])
