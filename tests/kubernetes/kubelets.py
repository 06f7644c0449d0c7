"""Simulate what controllers and kubelets do with a Deployment; set one as `SimulatedApi.kubelet`."""

from collections.abc import Callable

from tests.kubernetes.simulated import Document, SimulatedApi

Kubelet = Callable[[SimulatedApi, Document], None]


def pods_of(api: SimulatedApi, deployment: Document) -> list[Document]:
    version = deployment["metadata"]["labels"]["longshore.io/version"]
    return [pod for pod in api.all("pods") if pod["metadata"]["labels"]["longshore.io/version"] == version]


def runs(api: SimulatedApi, deployment: Document) -> None:
    """Run the image immediately, and remove the pods of older ones."""
    replicas = deployment["spec"]["replicas"]
    for pod in pods_of(api, deployment):
        api.remove("pods", pod["metadata"]["name"])
    pods = [_pod(api, deployment, {"running": {}}, ready=True) for _ in range(replicas)]
    _endpoints(api, deployment, pods)
    _status(deployment, replicas=replicas, updatedReplicas=replicas, availableReplicas=replicas)


def waits(reason: str, message: str, ended: Document | None = None) -> Kubelet:
    """Return a kubelet whose new container waits for this reason; older pods keep running."""

    def kubelet(api: SimulatedApi, deployment: Document) -> None:
        if not deployment["spec"]["replicas"]:
            return runs(api, deployment)
        old = len(pods_of(api, deployment))
        last = {"lastState": {"terminated": ended}} if ended else {}
        _pod(api, deployment, {"waiting": {"reason": reason, "message": message}}, ready=False, **last)
        return _status(deployment, replicas=old + 1, updatedReplicas=1, availableReplicas=old)

    return kubelet


def has_no_room(api: SimulatedApi, deployment: Document) -> None:
    """Leave the pod unscheduled."""
    if not deployment["spec"]["replicas"]:
        return runs(api, deployment)
    pod = _pod(api, deployment, None, ready=False)
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ]
    return _status(deployment, replicas=1, updatedReplicas=1)


def refuses_pods(message: str) -> Kubelet:
    """Return a kubelet for which the API refuses every pod of the Deployment."""

    def kubelet(api: SimulatedApi, deployment: Document) -> None:
        if not deployment["spec"]["replicas"]:
            return runs(api, deployment)
        condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        return _status(deployment, replicas=0, conditions=[condition])

    return kubelet


def _status(deployment: Document, **status: object) -> None:
    deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"], **status}


def _pod(api: SimulatedApi, deployment: Document, state: Document | None, *, ready: bool, **status: object) -> Document:
    template, meta = deployment["spec"]["template"], deployment["metadata"]
    container = template["spec"]["containers"][0]
    statuses = [
        {"name": "algorithm", "image": container["image"], "imageID": "", "ready": ready, "restartCount": 0,
         "state": state, **status}
    ] if state is not None else []  # fmt: skip
    return api.put(
        "pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{meta['name']}-{meta['generation']}-{len(api.all('pods'))}",
                "namespace": meta["namespace"],
                "labels": dict(template["metadata"]["labels"]),
            },
            "spec": template["spec"],
            "status": {"phase": "Running" if ready else "Pending", "containerStatuses": statuses},
        },
    )


def _endpoints(api: SimulatedApi, deployment: Document, pods: list[Document]) -> None:
    meta = deployment["metadata"]
    endpoints = [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"]},
        }
        for pod in pods
    ]
    api.put(
        "endpointslices",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "labels": {"kubernetes.io/service-name": meta["name"]},
            },
            "endpoints": endpoints,
        },
    )
