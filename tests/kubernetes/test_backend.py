"""The Kubernetes backend: the objects that it applies, when an instance counts as started, and its errors."""

import base64
import ipaddress
import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.settings import Settings
from tests.kubernetes import kubelets
from tests.kubernetes.simulated import ApiError, Document, SimulatedApi
from workers.kubernetes import cluster as cluster_module
from workers.kubernetes.cluster import Cluster
from workers.serving.backend import InstanceSpec
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes import rollout
from workers.serving.kubernetes.backend import KubernetesBackend
from workers.serving.kubernetes.objects import egress_policy

NewSpec = Callable[..., InstanceSpec]


def started(backend: KubernetesBackend, spec: InstanceSpec) -> str:
    return backend.start(spec, lambda _text: None, CancelToken()).endpoint


def only(api: SimulatedApi, plural: str) -> Document:
    (only,) = api.all(plural)
    return only


def test_a_version_runs_hardened_behind_its_service(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    start = new_spec()
    name = f"longshore-{start.instance.version_id}"
    assert started(backend, start) == f"http://{name}.algorithms.svc:8080"
    deployment = only(api, "deployments")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == start.instance.image
    assert container["imagePullPolicy"] == "Always"
    assert pod["nodeSelector"] == {"algorithmia.com/role": "algorithm-worker"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["volumes"] == [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": str(256 * 1024**2)}}]
    assert container["resources"]["limits"] == {"cpu": "1000m", "memory": str(1024**3)}
    assert only(api, "services")["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert only(api, "networkpolicies")["metadata"]["name"] == "longshore-egress"


def test_the_pull_secret_holds_the_registrys_credentials_and_is_replaced_with_them(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    started(backend, new_spec(password="first-secret"))
    started(backend, new_spec(password="second-secret"))
    secret = only(api, "secrets")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    held = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert held == {"auths": {"registry.example": {"auth": base64.b64encode(b"reader:second-secret").decode()}}}
    pod = only(api, "deployments")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": secret["metadata"]["name"]}]
    assert "secret" not in caplog.text.replace("secrets", "").replace("longshore-pull", "")


def test_docker_hub_is_named_as_the_kubelet_looks_for_it(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    started(backend, new_spec(host="docker.io"))
    held = json.loads(base64.b64decode(only(api, "secrets")["data"][".dockerconfigjson"]))
    assert list(held["auths"]) == ["https://index.docker.io/v1/"]


def test_an_identity_token_is_refused_with_what_to_do(backend: KubernetesBackend, new_spec: NewSpec) -> None:
    with pytest.raises(WorkError, match="give the registry a username and a password") as refused:
        started(backend, new_spec(username="<token>"))
    assert refused.value.error_class == ErrorClass.AUTH


def test_another_image_is_a_rolling_update_and_the_old_one_is_over(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    first, second = new_spec(), new_spec(host="sandbox.example")
    started(backend, first)
    started(backend, second)
    assert only(api, "deployments")["spec"]["template"]["spec"]["containers"][0]["image"] == second.instance.image
    seen = backend.observe([first.instance, second.instance])
    assert list(seen) == [second.instance.id]
    assert seen[second.instance.id].alive
    backend.stop(first.instance)  # it does not run any more
    assert only(api, "deployments")["spec"]["replicas"] == 1
    backend.stop(second.instance)
    assert only(api, "deployments")["spec"]["replicas"] == 0
    assert backend.observe([second.instance]) == {}
    started(backend, new_spec())
    assert only(api, "deployments")["spec"]["replicas"] == 1


def is_reached(policy: Any, address: str, port: int) -> bool:
    """Return whether a policy of egress allows a connection to an address outside of the cluster's pods."""
    target = ipaddress.ip_address(address)
    return any(
        target in ipaddress.ip_network(block["cidr"])
        and not any(target in ipaddress.ip_network(excepted) for excepted in block.get("except", []))
        for rule in policy["spec"]["egress"]
        if port in [one["port"] for one in rule.get("ports", [])] or "ports" not in rule
        for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer)
    )


def test_an_algorithm_reaches_dns_and_the_internet_but_no_private_address(
    api: SimulatedApi, cluster: Cluster, new_spec: NewSpec
) -> None:
    settings = Settings(egress_networks=("10.7.0.0/16", "169.254.0.0/16", "fd12::/64", "169.0.0.0/8"))
    started(KubernetesBackend(settings, cluster), new_spec())
    policy = only(api, "networkpolicies")
    assert policy["spec"]["policyTypes"] == ["Egress"]
    labels = only(api, "deployments")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchExpressions"] == [
        {"key": "longshore.io/network", "operator": "NotIn", "values": ["isolated"]}
    ]
    for address in ("198.51.100.7", "2001:db8::7", "10.7.1.1", "fd12::1"):
        assert is_reached(policy, address, 443), address
    near = ["169.254.169.254", "169.254.20.10", "192.168.1.1", "172.16.0.1", "127.0.0.1", "168.63.129.16"]
    for address in [*near, "::1", "fe80::1", "fd00:ec2::254", "fc00::1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"]:
        assert not is_reached(policy, address, 443), address
    assert is_reached(policy, "169.254.20.10", 53)
    dns = policy["spec"]["egress"][0]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_an_api_server_on_a_public_address_is_not_reached() -> None:
    policy = ApiClient().sanitize_for_serialization(egress_policy(Settings(), ["198.51.100.7"]))
    assert is_reached(policy, "198.51.100.8", 443)
    assert not is_reached(policy, "198.51.100.7", 443)


def test_an_isolated_algorithm_reaches_nothing(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    started(backend, new_spec(network="isolated"))
    policy = only(api, "networkpolicies")["spec"]
    labels = only(api, "deployments")["spec"]["template"]["metadata"]["labels"]
    assert policy["policyTypes"] == ["Egress"]
    assert "egress" not in policy
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    started(backend, new_spec(network="full"))
    labels = only(api, "deployments")["spec"]["template"]["metadata"]["labels"]
    assert not policy["podSelector"]["matchLabels"].items() <= labels.items()


PULLS = [
    ("ErrImagePull", "failed to authorize: 401 Unauthorized", ErrorClass.AUTH),
    ("ImagePullBackOff", 'Back-off pulling image "x": manifest unknown: not found', ErrorClass.NOT_FOUND),
    ("ImagePullBackOff", "Back-off pulling image", ErrorClass.TRANSIENT),
    ("ErrImagePull", "toomanyrequests: slow down", ErrorClass.THROTTLED),
    ("ErrImagePull", "dial tcp: i/o timeout", ErrorClass.TRANSIENT),
    ("InvalidImageName", "", ErrorClass.INVALID),
]


@pytest.mark.parametrize(("reason", "message", "error_class"), PULLS)
def test_what_cannot_be_pulled_is_said_and_scaled_to_zero(
    api: SimulatedApi,
    backend: KubernetesBackend,
    new_spec: NewSpec,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    message: str,
    error_class: str,
) -> None:
    monkeypatch.setattr(rollout, "PULL_AUTH_GRACE_SECONDS", 0)
    api.kubelet = kubelets.waits(reason, message)
    with pytest.raises(WorkError, match=r"registry\.example/ann/fit@sha256") as failed:
        started(backend, new_spec())
    assert failed.value.error_class == error_class
    assert only(api, "deployments")["spec"]["replicas"] == 0


@pytest.mark.parametrize("waits_with", ["ImagePullBackOff", "ErrImagePull"])
def test_a_kubelet_that_had_not_read_the_secret_tries_again(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec, waits_with: str
) -> None:
    messages = list[str]()

    def say(text: str) -> None:
        messages.append(text)
        (deployment,) = api.all("deployments")
        (pod,) = api.all("pods")
        (status,) = pod["status"]["containerStatuses"]
        if status["state"]["waiting"]["reason"] == "ErrImagePull" and waits_with != "ErrImagePull":
            status["state"] = {"waiting": {"reason": waits_with, "message": "Back-off pulling image"}}
        else:
            kubelets.runs(api, deployment)

    api.kubelet = kubelets.waits("ErrImagePull", "pulling from host failed: 401 Unauthorized")
    backend.start(new_spec(), say, CancelToken())
    assert "Waits until the node retries" in messages[0]
    assert "401 Unauthorized" in messages[0]


@pytest.mark.parametrize(("age", "alive"), [(timedelta(seconds=5), True), (timedelta(minutes=5), False)])
def test_a_pod_that_was_moved_is_given_time_to_be_pulled(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec, age: timedelta, *, alive: bool
) -> None:
    start = new_spec()
    started(backend, start)
    deployment = only(api, "deployments")
    for pod in api.all("pods"):
        api.remove("pods", pod["metadata"]["name"])
    kubelets.waits("ErrImagePull", "401 Unauthorized")(api, deployment)
    only(api, "pods")["status"]["startTime"] = (datetime.now(UTC) - age).isoformat()
    assert backend.observe([start.instance])[start.instance.id].alive is alive


def test_without_a_secret_a_refusal_is_final_at_once(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    api.kubelet = kubelets.waits("ErrImagePull", "401 Unauthorized")
    with pytest.raises(WorkError) as failed:
        started(backend, new_spec(password=None))
    assert failed.value.error_class == ErrorClass.AUTH


def test_a_start_that_another_image_overtakes_ends(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    newer = new_spec(host="sandbox.example")

    def overtake(_text: str) -> None:
        api.kubelet = kubelets.runs
        started(backend, newer)

    api.kubelet = kubelets.waits("ContainerCreating", "")
    with pytest.raises(WorkError, match="Another image") as failed:
        backend.start(new_spec(), overtake, CancelToken())
    assert failed.value.error_class == ErrorClass.TRANSIENT
    assert only(api, "deployments")["spec"]["replicas"] == 1
    assert backend.observe([newer.instance])[newer.instance.id].alive


def test_a_signed_address_in_what_the_kubelet_says_is_not_repeated(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    api.kubelet = kubelets.waits("ErrImagePull", 'Get "https://blobs.example/x?X-Signature=abc123": timeout')
    with pytest.raises(WorkError) as failed:
        started(backend, new_spec())
    assert "https://blobs.example/x" in failed.value.message
    assert "abc123" not in failed.value.message


def test_a_process_that_takes_too_much_memory_is_said(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    api.kubelet = kubelets.waits("CrashLoopBackOff", "back-off", {"reason": "OOMKilled", "exitCode": 137})
    with pytest.raises(WorkError, match="LONGSHORE_SERVING_MEMORY_BYTES") as failed:
        started(backend, new_spec())
    assert failed.value.error_class == ErrorClass.INVALID


def test_a_cluster_without_room_is_waited_for(api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec) -> None:
    api.kubelet = kubelets.has_no_room
    with pytest.raises(WorkError, match="0/3 nodes are available") as failed:
        started(backend, new_spec())
    assert failed.value.error_class == ErrorClass.UNAVAILABLE


@pytest.mark.parametrize(
    ("message", "error_class"),
    [
        ('pods "x" is forbidden: exceeded quota: compute', ErrorClass.UNAVAILABLE),
        ('pods "x" is forbidden: violates PodSecurity', ErrorClass.INVALID),
    ],
)
def test_pods_that_the_api_refuses_are_said(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec, message: str, error_class: ErrorClass
) -> None:
    api.kubelet = kubelets.refuses_pods(message)
    with pytest.raises(WorkError, match="forbidden") as failed:
        started(backend, new_spec())
    assert failed.value.error_class == error_class


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (401, ErrorClass.UNAVAILABLE),
        (403, ErrorClass.UNAVAILABLE),
        (404, ErrorClass.UNAVAILABLE),
        (422, ErrorClass.INVALID),
        (500, ErrorClass.UNAVAILABLE),
    ],
)
def test_what_the_api_refuses_is_said(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec, status: int, error_class: ErrorClass
) -> None:
    api.refuse["deployments"] = ApiError(status, "because it will not")
    with pytest.raises(WorkError, match="because it will not") as failed:
        started(backend, new_spec())
    assert failed.value.error_class == error_class


def test_a_cluster_that_is_not_configured_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none")
    with pytest.raises(WorkError, match="KUBECONFIG") as failed:
        Cluster.connect("algorithms")
    assert failed.value.error_class == ErrorClass.UNAVAILABLE


def test_a_cluster_that_does_not_respond_in_time_is_unavailable(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "REQUEST_TIMEOUT_SECONDS", 0.1)
    over = threading.Event()
    api.on_answer = lambda _api: over.wait(10)
    with pytest.raises(WorkError, match="does not respond") as failed:
        backend.observe([new_spec().instance])
    over.set()
    assert failed.value.error_class == ErrorClass.UNAVAILABLE


def test_a_start_that_is_stopped_leaves_nothing_running(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    stop = CancelToken()

    def kubelet(api: SimulatedApi, deployment: Document) -> None:
        kubelets.waits("ContainerCreating", "")(api, deployment)
        stop.cancel("cancelled")

    api.kubelet = kubelet
    with pytest.raises(WorkCancelledError):
        backend.start(new_spec(), lambda _text: None, stop)
    assert only(api, "deployments")["spec"]["replicas"] == 0


def test_a_start_that_was_taken_over_is_left_alone_by_the_one_before(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    stop, start = CancelToken(), new_spec()

    def take_over(_text: str) -> None:
        api.kubelet = kubelets.runs
        started(backend, start)  # by another worker, which has the job's lease by now
        stop.cancel("the job was taken over")

    api.kubelet = kubelets.waits("ContainerCreating", "")
    with pytest.raises(WorkCancelledError):
        backend.start(start, take_over, stop)
    assert only(api, "deployments")["spec"]["replicas"] == 1


def test_what_nobody_knows_is_cleared_but_not_what_was_wanted_just_now(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = new_spec()
    started(backend, start)
    backend.remove_orphans([], set().intersection)
    assert only(api, "deployments")["spec"]["replicas"] == 1  # its row may be newer than the list of known instances
    monkeypatch.setattr(backend_module, "ORPHAN_GRACE_SECONDS", -1)
    backend.remove_orphans([start.instance.id], {start.instance.version_id}.intersection)
    assert only(api, "deployments")["spec"]["replicas"] == 1
    assert len(api.all("secrets")) == 1
    backend.remove_orphans([], {start.instance.version_id}.intersection)
    assert only(api, "deployments")["spec"]["replicas"] == 0
    assert api.all("secrets") == []
    assert len(api.all("services")) == 1
    backend.remove_orphans([], set().intersection)
    assert [api.all(kind) for kind in ("deployments", "services", "pods")] == [[], [], []]


def test_a_restart_replaces_the_pods_of_what_runs_and_of_nothing_else(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    def template() -> Document:
        found: Document = only(api, "deployments")["spec"]["template"]
        return found

    first, second = new_spec(), new_spec()
    started(backend, first)
    before = template()
    assert backend.restart(first.instance)
    once = template()
    assert "kubectl.kubernetes.io/restartedAt" in once["metadata"]["annotations"]
    assert once["spec"] == before["spec"]
    assert backend.observe([first.instance])[first.instance.id].alive
    assert backend.restart(first.instance)
    assert template() != once
    started(backend, second)
    now = template()
    backend.restart(first.instance)  # it does not run any more
    assert template() == now
    backend.stop(second.instance)
    backend.restart(second.instance)
    assert only(api, "deployments")["spec"]["replicas"] == 0
    assert template() == now


def test_a_restart_that_the_cluster_does_not_take_is_told(
    api: SimulatedApi, backend: KubernetesBackend, new_spec: NewSpec
) -> None:
    start = new_spec()
    started(backend, start)
    api.refuse["deployments"] = ApiError(403, "deployments is forbidden")
    with pytest.raises(WorkError, match=r"cannot restart longshore-.* is forbidden"):
        backend.restart(start.instance)
