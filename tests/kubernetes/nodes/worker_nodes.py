"""Put nodes, their pods and disruption budgets into a `SimulatedApi`."""

from typing import Any

from tests.kubernetes.simulated import Document, SimulatedApi

REFRESH = "longshore.io/refresh"
ROLE = {"algorithmia.com/role": "algorithm-worker"}
SPACE = "work"


def put_node(
    api: SimulatedApi, name: str, *, cordoned: bool = False, labels: dict[str, str] = ROLE, mark: str | None = None
) -> Document:
    return api.put(
        "nodes",
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {} if mark is None else {REFRESH: mark}},
            "spec": {"unschedulable": True} if cordoned else {},
            "status": {"nodeInfo": _info("boot-1"), "conditions": [_ready("True", "kubelet is posting ready status")]},
        },
    )


def put_pod(
    api: SimulatedApi,
    node: str,
    name: str,
    *,
    owner: str | None = "ReplicaSet",
    app: str = "app",
    phase: str = "Running",
    **meta: Any,
) -> Document:
    owners = [{"apiVersion": "apps/v1", "kind": owner, "name": app, "uid": f"uid-{app}", "controller": True}]
    return api.put(
        "pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": SPACE,
                "labels": {"app": app},
                "ownerReferences": owners if owner else [],
                **meta,
            },
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/main"}]},
            "status": {"phase": phase},
        },
    )


def put_budget(api: SimulatedApi, name: str, *, allowed: int, namespace: str = SPACE, **selector: Any) -> Document:
    return api.put(
        "poddisruptionbudgets",
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"minAvailable": 1, "selector": selector},
            "status": {
                "currentHealthy": 1,
                "desiredHealthy": 1,
                "disruptionsAllowed": allowed,
                "expectedPods": 1,
                "observedGeneration": 1,
            },
        },
    )


def node_of(api: SimulatedApi, name: str) -> Document:
    return api.objects["nodes", "", name]


def is_cordoned(api: SimulatedApi, name: str) -> bool:
    return bool(node_of(api, name)["spec"].get("unschedulable"))


def is_as_before(api: SimulatedApi, name: str) -> bool:
    """Return whether the node takes pods and has no annotation of a refresh."""
    return not is_cordoned(api, name) and node_of(api, name)["metadata"]["annotations"] == {}


def reboot(api: SimulatedApi, name: str) -> None:
    """Give the node another boot id, as a restart of the machine does."""
    status = node_of(api, name)["status"]
    boot = int(status["nodeInfo"]["bootID"].removeprefix("boot-")) + 1
    status |= {"nodeInfo": _info(f"boot-{boot}"), "conditions": [_ready("True", "kubelet is posting ready status")]}


def lose(api: SimulatedApi, name: str, why: str) -> None:
    """Set the condition of a kubelet that cannot run pods."""
    node_of(api, name)["status"]["conditions"] = [_ready("False", why)]


def end_slowly(_api: SimulatedApi, pod: Document) -> None:
    """For `SimulatedApi.on_eviction`: the pod terminates, but is not gone yet."""
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def _ready(status: str, message: str) -> Document:
    return {"type": "Ready", "status": status, "reason": "Kubelet", "message": message}


def _info(boot_id: str) -> Document:
    names = ("architecture", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion")
    more = ("machineID", "operatingSystem", "osImage", "systemUUID")
    return {**dict.fromkeys((*names, *more), "simulated"), "bootID": boot_id}
