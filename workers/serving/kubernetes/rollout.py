"""A rollout: waiting until exactly what was applied takes calls, or until it is seen that it never will."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from kubernetes.client import V1ContainerStatus, V1Deployment, V1Pod

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.kubernetes.cluster import REQUEST_SECONDS, Cluster, answering
from workers.kubernetes.labels import SERVING, label_of, meta_of, name_of
from workers.serving.kubernetes.pulls import PULL_PROBLEMS, pull_problem

POLL_INTERVAL_SECONDS = 0.5
CANNOT_RUN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")


REFUSED_SECONDS = 30.0
"""For so long a refusal of a pull that has a Secret is not believed. A kubelet that has not read the Secret by then, or
still has the former one, pulls all the same, and is refused; it reads it and tries again, 10 to 20 seconds later."""


class Refusals:
    """What the registry refuses of one start."""

    def __init__(self, *, with_secret: bool) -> None:
        self._with_secret = with_secret
        self._since: float | None = None
        self._refusal: WorkError | None = None

    def verdict(self, problem: WorkError) -> WorkError | None:
        """What ends the start; None: it may pass by itself."""
        if self._with_secret and problem.error_class == ErrorClass.AUTH:
            self._since = self._since or time.monotonic()
            self._refusal = problem
        if self._since is None:
            return problem
        # While a kubelet waits for its next try, some say no more than that it does.
        return None if time.monotonic() - self._since < REFUSED_SECONDS else self._refusal


def await_rollout(
    cluster: Cluster,
    applied: V1Deployment,
    say: Callable[[str], None],
    stop: CancelToken,
    *,
    with_secret: bool,
    load_seconds: float,
) -> None:
    """Wait until only the pods of this Deployment's generation take calls. `with_secret`: they pull with one.

    Raises:
        Stopped: the stop was asked for.
        WorkError: it cannot be pulled, placed or run; it took longer than `load_seconds` from when its container ran
            until it took calls; or another image of the version was applied meanwhile (transient).
    """
    name, instance_id = name_of(applied), label_of(applied, SERVING)
    refusals = Refusals(with_secret=with_secret)
    loads_since: float | None = None
    said = ""
    while True:
        stop.check()
        with answering(f"say how {name} is"):
            now = cluster.apps.read_namespaced_deployment(name, cluster.namespace, _request_timeout=REQUEST_SECONDS)
            if label_of(now, SERVING) != instance_id:
                raise WorkError(ErrorClass.TRANSIENT, "Another image of the version was started meanwhile.")
            pods = pods_of(cluster, instance_id)
            if _is_out(now, applied) and _only_these_take_calls(cluster, name, pods):
                return
        problem = next(filter(None, map(pod_problem, pods)), None) or _refused_pods(now, applied)
        verdict = None if problem is None else refusals.verdict(problem)
        if verdict is not None:
            raise verdict
        loads = any(_runs(pod) for pod in pods)
        loads_since = (loads_since or time.monotonic()) if loads else None
        if loads_since is not None and time.monotonic() - loads_since > load_seconds:
            message = (
                f"The algorithm did not load within {load_seconds:g} s (LONGSHORE_SERVING_START_SECONDS): let it do "
                "less when it is imported."
            )
            raise WorkError(ErrorClass.INVALID, message)
        news = _news(pods, problem, loads=loads)
        if news != said:
            say(news)
            said = news
        stop.pause(POLL_INTERVAL_SECONDS)


def _news(pods: Sequence[V1Pod], problem: WorkError | None, *, loads: bool) -> str:
    if problem is not None:
        return f"Waits for the node's next try. {problem.message}"
    if loads:
        return "The algorithm loads."
    return "The cluster pulls the image." if pods else "Waits for its pod."


def pods_of(cluster: Cluster, instance_id: str) -> list[V1Pod]:
    """The pods of one serving that are not being removed."""
    found = cluster.core.list_namespaced_pod(
        cluster.namespace, label_selector=f"{SERVING}={instance_id}", _request_timeout=REQUEST_SECONDS
    )
    return [pod for pod in found.items if meta_of(pod).deletion_timestamp is None]


def pod_problem(pod: V1Pod) -> WorkError | None:
    """Why a pod will not take calls by itself; None: nothing is known against it."""
    for condition in (pod.status.conditions if pod.status else None) or []:
        if condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable":
            message = f"The cluster has no room for the algorithm: {condition.message or 'no reason given'}"
            return WorkError(ErrorClass.UNAVAILABLE, message)
    for status in _statuses(pod):
        problem = _container_problem(status)
        if problem is not None:
            return problem
    return None


def may_pass(pod: V1Pod, problem: WorkError) -> bool:
    """Whether the node may overcome a pod's problem by itself, as one may that has just got a pod of a lost node."""
    begun = pod.status.start_time if pod.status else None
    is_young = begun is not None and datetime.now(UTC) - begun < timedelta(seconds=REFUSED_SECONDS)
    return is_young and problem.error_class in (ErrorClass.AUTH, ErrorClass.TRANSIENT)


def _container_problem(status: V1ContainerStatus) -> WorkError | None:
    waiting = status.state.waiting if status.state else None
    if waiting is None:
        return None
    reason, message = waiting.reason or "", waiting.message or ""
    if reason in PULL_PROBLEMS:
        return pull_problem(status.image, reason, message)
    if reason in CANNOT_RUN:
        return WorkError(ErrorClass.INVALID, f"The cluster cannot run the algorithm's image ({reason}): {message}")
    if reason == "CrashLoopBackOff":
        return WorkError(ErrorClass.INVALID, f"The algorithm's process ends again and again: {_last_end(status)}")
    return None


def _last_end(status: V1ContainerStatus) -> str:
    ended = status.last_state.terminated if status.last_state else None
    if ended is None:
        return "the cluster does not say why."
    if ended.reason == "OOMKilled":
        return "it took more memory than LONGSHORE_SERVING_MEMORY_BYTES allows."
    return f"it ended with exit code {ended.exit_code} ({ended.reason or 'no reason given'}); see the pod's log."


def _refused_pods(now: V1Deployment, applied: V1Deployment) -> WorkError | None:
    """What keeps the Deployment from making pods: a quota, a limit range, an admission policy."""
    if now.status is None or (now.status.observed_generation or 0) < (meta_of(applied).generation or 0):
        return None
    for condition in now.status.conditions or []:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            # A quota may have room again; what an admission policy refuses it refuses each time.
            passes = "exceeded quota" in (condition.message or "")
            error_class = ErrorClass.UNAVAILABLE if passes else ErrorClass.INVALID
            return WorkError(error_class, f"The cluster refuses the algorithm's pod: {condition.message}")
    return None


def _is_out(now: V1Deployment, applied: V1Deployment) -> bool:
    status, wanted = now.status, now.spec.replicas or 0
    if status is None or wanted == 0 or (status.observed_generation or 0) < (meta_of(applied).generation or 0):
        return False
    return status.updated_replicas == status.replicas == status.available_replicas == wanted


def _only_these_take_calls(cluster: Cluster, service: str, pods: Sequence[V1Pod]) -> bool:
    """Whether the Service leads to these pods and to no other."""
    slices = cluster.discovery.list_namespaced_endpoint_slice(
        cluster.namespace, label_selector=f"kubernetes.io/service-name={service}", _request_timeout=REQUEST_SECONDS
    )
    endpoints = [endpoint for part in slices.items for endpoint in part.endpoints or []]
    taking = {end.target_ref.name for end in endpoints if end.target_ref and end.conditions and end.conditions.ready}
    return bool(taking) and taking <= {name_of(pod) for pod in pods}


def _runs(pod: V1Pod) -> bool:
    return any(status.state is not None and status.state.running is not None for status in _statuses(pod))


def _statuses(pod: V1Pod) -> list[V1ContainerStatus]:
    return (pod.status.container_statuses if pod.status else None) or []
