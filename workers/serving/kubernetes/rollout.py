"""Wait until the pods of an applied Deployment take calls, or until an error shows that they will not."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from kubernetes.client import V1ContainerStatus, V1Deployment, V1Pod

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.kubernetes.cluster import Cluster, cluster_errors, is_terminating, label_of, metadata_of, name_of
from workers.serving.backend import load_timeout
from workers.serving.kubernetes.labels import INSTANCE
from workers.serving.kubernetes.pulls import PULL_REASONS, pull_error

POLL_INTERVAL_SECONDS = 0.5
RUN_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
PULL_AUTH_GRACE_SECONDS = 30.0
"""How long a refused pull with a Secret may be retried. A kubelet that has not read the Secret yet, or still has the
one before, pulls all the same and is refused; 10 to 20 seconds later it reads the Secret and retries."""


class PullAuthGrace:
    """Gives the pulls of one start the time in which a kubelet may not have read their Secret yet."""

    def __init__(self, *, with_secret: bool) -> None:
        self._with_secret = with_secret
        self._refused_at: float | None = None
        self._refusal: WorkError | None = None

    def check(self, error: WorkError) -> None:
        """Raise the error that ends the start, unless the kubelet may recover from it."""
        if self._with_secret and error.error_class == ErrorClass.AUTH:
            self._refused_at = self._refused_at or time.monotonic()
            self._refusal = error
        if self._refusal is None or self._refused_at is None:
            raise error
        # Between two attempts some kubelets report only the back-off, so the refusal is what is raised.
        if time.monotonic() - self._refused_at >= PULL_AUTH_GRACE_SECONDS:
            raise self._refusal


def await_rollout(
    cluster: Cluster,
    applied: V1Deployment,
    report: Callable[[str], None],
    stop: CancelToken,
    *,
    with_secret: bool,
    load_seconds: float,
) -> None:
    """Wait until only the pods of this generation of the Deployment take calls. `with_secret`: they pull with one.

    Raises:
        WorkCancelledError: the start was cancelled.
        WorkError: the image cannot be pulled, placed or run; it took longer than `load_seconds` from when its
            container ran until it took calls; or another image of the version was applied meanwhile (transient).
    """
    name, instance_id = name_of(applied), label_of(applied, INSTANCE)
    grace = PullAuthGrace(with_secret=with_secret)
    loads_since: float | None = None
    reported = ""
    while True:
        stop.check()
        with cluster_errors(f"read Deployment {name}"):
            current = cluster.apps.read_namespaced_deployment(name, cluster.namespace)
            if label_of(current, INSTANCE) != instance_id:
                raise WorkError(ErrorClass.TRANSIENT, "Another image of the version was started meanwhile.")
            pods = pods_of(cluster, instance_id)
            if _is_rolled_out(current, applied) and _only_these_take_calls(cluster, name, pods):
                return
        problem = next(filter(None, map(pod_problem, pods)), None) or _replica_failure(current, applied)
        if problem is not None:
            grace.check(problem)
        loads = any(status.state and status.state.running for pod in pods for status in _container_statuses(pod))
        loads_since = (loads_since or time.monotonic()) if loads else None
        if loads_since is not None and time.monotonic() - loads_since > load_seconds:
            raise load_timeout(load_seconds)
        message = _progress(pods, problem, loads=loads)
        if message != reported:
            report(message)
            reported = message
        stop.sleep(POLL_INTERVAL_SECONDS)


def _progress(pods: Sequence[V1Pod], problem: WorkError | None, *, loads: bool) -> str:
    if problem is not None:
        return f"Waits until the node retries. {problem.message}"
    if loads:
        return "The algorithm loads."
    return "The cluster pulls the image." if pods else "Waits for its pod."


def pods_of(cluster: Cluster, instance_id: str) -> list[V1Pod]:
    return [
        pod
        for pod in cluster.core.list_namespaced_pod(cluster.namespace, label_selector=f"{INSTANCE}={instance_id}").items
        if not is_terminating(pod)
    ]


def pod_problem(pod: V1Pod) -> WorkError | None:
    """Return the error that keeps a pod from taking calls; None if none is known."""
    for condition in (pod.status.conditions if pod.status else None) or []:
        if condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable":
            return WorkError(
                ErrorClass.UNAVAILABLE,
                f"The cluster has no capacity for the algorithm: {condition.message or 'no reason given'}",
            )
    return next(filter(None, map(_container_problem, _container_statuses(pod))), None)


def may_recover(pod: V1Pod, problem: WorkError) -> bool:
    """Return whether a pod may overcome a problem by itself, such as a new pod that replaces one of a lost node."""
    started_at = pod.status.start_time if pod.status else None
    is_young = started_at is not None and datetime.now(UTC) - started_at < timedelta(seconds=PULL_AUTH_GRACE_SECONDS)
    return is_young and problem.error_class in (ErrorClass.AUTH, ErrorClass.TRANSIENT)


def _container_problem(status: V1ContainerStatus) -> WorkError | None:
    waiting = status.state.waiting if status.state else None
    if waiting is None:
        return None
    reason, message = waiting.reason or "", waiting.message or ""
    if reason in PULL_REASONS:
        return pull_error(status.image, reason, message)
    if reason in RUN_REASONS:
        return WorkError(ErrorClass.INVALID, f"The cluster cannot run the algorithm's image ({reason}): {message}")
    if reason == "CrashLoopBackOff":
        return WorkError(ErrorClass.INVALID, f"The algorithm's process ends again and again: {_exit_reason(status)}")
    return None


def _exit_reason(status: V1ContainerStatus) -> str:
    terminated = status.last_state.terminated if status.last_state else None
    if terminated is None:
        return "the cluster does not say why."
    if terminated.reason == "OOMKilled":
        return "it took more memory than LONGSHORE_SERVING_MEMORY_BYTES allows."
    return (
        f"it ended with exit code {terminated.exit_code} ({terminated.reason or 'no reason given'}); see the pod's log."
    )


def _replica_failure(current: V1Deployment, applied: V1Deployment) -> WorkError | None:
    """Return the error that keeps the Deployment from creating pods: a quota, a limit range, an admission policy."""
    if current.status is None or not _is_observed(current, applied):
        return None
    for condition in current.status.conditions or []:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            # A quota may have capacity later; an admission policy refuses the same pod each time.
            return WorkError(
                ErrorClass.UNAVAILABLE if "exceeded quota" in (condition.message or "") else ErrorClass.INVALID,
                f"The cluster refuses the algorithm's pod: {condition.message}",
            )
    return None


def _is_observed(current: V1Deployment, applied: V1Deployment) -> bool:
    """Return whether the status is about the applied generation, or a later one."""
    observed = (current.status.observed_generation if current.status else None) or 0
    return observed >= (metadata_of(applied).generation or 0)


def _is_rolled_out(current: V1Deployment, applied: V1Deployment) -> bool:
    status, replicas = current.status, current.spec.replicas
    if status is None or not replicas or not _is_observed(current, applied):
        return False
    return status.updated_replicas == status.replicas == status.available_replicas == replicas


def _only_these_take_calls(cluster: Cluster, service: str, pods: Sequence[V1Pod]) -> bool:
    slices = cluster.discovery.list_namespaced_endpoint_slice(
        cluster.namespace, label_selector=f"kubernetes.io/service-name={service}"
    )
    ready = {
        end.target_ref.name
        for part in slices.items
        for end in part.endpoints or []
        if end.target_ref and end.conditions and end.conditions.ready
    }
    return bool(ready) and ready <= {name_of(pod) for pod in pods}


def _container_statuses(pod: V1Pod) -> list[V1ContainerStatus]:
    return (pod.status.container_statuses if pod.status else None) or []
