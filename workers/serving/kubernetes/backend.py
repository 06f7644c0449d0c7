"""The backend that runs images on a Kubernetes cluster. All that it knows stands on the cluster's own objects."""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from kubernetes.client import V1Deployment
from kubernetes.client.exceptions import ApiException

from shared.cancellation import CancelToken
from shared.db.models import Instance
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.settings.serving import ServingSettings
from workers.kubernetes.cluster import MERGE, REQUEST_SECONDS, Cluster, answering, if_there
from workers.kubernetes.labels import (
    COMPONENT,
    OURS,
    REGISTRY,
    RESTARTED,
    RUNNERS,
    SERVING,
    STARTED,
    VERSION,
    Marked,
    annotation_of,
    label_of,
    meta_of,
    name_of,
    version_name,
)
from workers.runner import PORT
from workers.serving.backend import Observed, Start, Started
from workers.serving.kubernetes.objects import deployment_of, isolated_policy, service_of
from workers.serving.kubernetes.pulls import pull_secret
from workers.serving.kubernetes.rollout import await_rollout, may_pass, pod_problem

GRACE_SECONDS = 600
"""What was wanted so lately is not cleared away: whoever clears may have asked before it was."""
CONFLICT = 409


class KubernetesBackend:
    """Runs each version as a Deployment behind a Service; another image of the version is a rolling update."""

    one_per_version = True

    def __init__(self, settings: ServingSettings, cluster: Cluster | None = None) -> None:
        self._settings = settings
        self._given = cluster

    @cached_property
    def _cluster(self) -> Cluster:
        return self._given or Cluster.connect(self._settings.kubernetes_namespace)

    def start(self, start: Start, say: Callable[[str], None], stop: CancelToken) -> Started:
        """Apply the version's objects, and wait until the pods of exactly this image take calls."""
        if start.registry is None:
            message = "A cluster pulls from registries only: push the version to a registry, then call again."
            raise WorkError(ErrorClass.INVALID, message)
        cluster, started = self._cluster, f"{time.time():.0f}/{uuid.uuid4()}"
        if start.credentials is not None:
            secret = pull_secret(start.registry, start.credentials, started)
            cluster.apply(cluster.core.patch_namespaced_secret, secret)
        if start.instance.network == "isolated":
            cluster.apply(cluster.networking.patch_namespaced_network_policy, isolated_policy())
        cluster.apply(cluster.core.patch_namespaced_service, service_of(start))
        deployment = deployment_of(start, self._settings, started)
        applied = cluster.apply(cluster.apps.patch_namespaced_deployment, deployment)
        try:
            await_rollout(
                cluster, applied, say, stop,
                with_secret=start.credentials is not None, load_seconds=self._settings.serving_start_seconds,
            )  # fmt: skip
        except (WorkCancelledError, WorkError):
            # Whoever took the start over has applied it anew, and under another mark. Where the cluster is away now,
            # what ended the start is still what is said, and `clear` ends the pods.
            with suppress(WorkError):
                self._scale_to_zero(start.instance.version_id, _has(STARTED, started))
            raise
        name = name_of(applied)
        return Started(endpoint=f"http://{name}.{cluster.namespace}.svc:{PORT}", runtime_ref=name)

    def observe(self, instances: Sequence[Instance]) -> Mapping[str, Observed]:
        """How the pods are, in two questions however many servings there are."""
        cluster = self._cluster
        with answering("say what runs"):
            deployments = self._all_of(cluster.apps.list_namespaced_deployment)
            pods = self._all_of(cluster.core.list_namespaced_pod)
        wanted = {label_of(one, SERVING) for one in deployments if _replicas(one)}
        asked = {instance.id for instance in instances}
        # A Deployment replaces what its nodes lost, so its serving lives while it has no pod for a moment.
        seen = {instance_id: Observed(alive=True) for instance_id in wanted & asked}
        for pod in pods:
            instance_id = label_of(pod, SERVING)
            if instance_id not in asked or meta_of(pod).deletion_timestamp is not None:
                continue
            problem = pod_problem(pod) if instance_id in wanted else None
            if problem is not None and may_pass(pod, problem):
                continue
            seen[instance_id] = Observed(alive=problem is None, why=problem.message if problem else "")
        return seen

    def restart(self, instance: Instance) -> bool:
        """Replace the pods one by one: their kubelets ask the registry (`imagePullPolicy: Always`)."""
        again = {RESTARTED: datetime.now(UTC).isoformat(timespec="milliseconds")}
        self._change(
            instance.version_id,
            lambda now: label_of(now, SERVING) == instance.id,
            {"template": {"metadata": {"annotations": again}}},
            what="restart",
        )
        return True

    def stop(self, instance: Instance) -> None:
        """Scale the version's Deployment to zero, unless it runs another image by now."""
        self._scale_to_zero(instance.version_id, lambda now: label_of(now, SERVING) == instance.id)

    def clear(self, running: Collection[str], existing: Callable[[Collection[str]], Collection[str]]) -> None:
        """Scale to zero what nobody knows, delete what was of versions that are gone, and Secrets that nothing uses."""
        cluster = self._cluster
        with answering("be cleared"):
            deployments = self._all_of(cluster.apps.list_namespaced_deployment)
            services = self._all_of(cluster.core.list_namespaced_service)
        there = {label_of(one, VERSION) for one in deployments} | {label_of(one, VERSION) for one in services}
        versions = existing(there)
        kept = [one for one in deployments if label_of(one, VERSION) in versions or _is_young(one)]
        with answering("be cleared"):
            for deployment in deployments:
                if deployment not in kept:
                    if_there(cluster.apps.delete_namespaced_deployment, name_of(deployment), cluster.namespace)
            with_services = {*versions, *(label_of(one, VERSION) for one in kept)}
            for service in services:
                if label_of(service, VERSION) not in with_services:
                    if_there(cluster.core.delete_namespaced_service, name_of(service), cluster.namespace)
        used = [one for one in kept if label_of(one, SERVING) in running or _is_young(one)]
        self._clear_secrets({label_of(one, REGISTRY) for one in used})
        for deployment in kept:
            if deployment not in used:
                self._scale_to_zero(label_of(deployment, VERSION), _has(STARTED, annotation_of(deployment, STARTED)))

    def _all_of(self, listing: Callable[..., Any], selector: str = RUNNERS) -> list[Any]:
        """What the namespace has of one kind: of our runners, or by another selector."""
        found = listing(self._cluster.namespace, label_selector=selector, _request_timeout=REQUEST_SECONDS)
        return list(found.items)

    def _clear_secrets(self, registries: Collection[str]) -> None:
        cluster = self._cluster
        with answering("be cleared"):
            for secret in self._all_of(cluster.core.list_namespaced_secret, f"{OURS},{COMPONENT}=pull"):
                if label_of(secret, REGISTRY) not in registries and not _is_young(secret):
                    if_there(cluster.core.delete_namespaced_secret, name_of(secret), cluster.namespace)

    def _scale_to_zero(self, version_id: str, is_meant: Callable[[V1Deployment], bool]) -> None:
        """End the pods of a version."""
        self._change(version_id, is_meant, {"replicas": 0}, what="stop")

    def _change(
        self, version_id: str, is_meant: Callable[[V1Deployment], bool], spec: dict[str, Any], *, what: str
    ) -> None:
        """Change a version's Deployment if it has pods and still is the one that is meant when the API hears of it."""
        cluster, name = self._cluster, version_name(version_id)
        with answering(f"{what} {name}"):
            while True:
                now = if_there(cluster.apps.read_namespaced_deployment, name, cluster.namespace)
                if now is None or not _replicas(now) or not is_meant(now):
                    return
                change = {"metadata": {"resourceVersion": meta_of(now).resource_version}, "spec": spec}
                try:
                    if_there(
                        cluster.apps.patch_namespaced_deployment, name, cluster.namespace, body=change,
                        _content_type=MERGE,
                    )  # fmt: skip
                except ApiException as error:
                    if error.status != CONFLICT:
                        raise
                else:
                    return


def _has(annotation: str, value: str) -> Callable[[V1Deployment], bool]:
    return lambda now: annotation_of(now, annotation) == value


def _replicas(deployment: V1Deployment) -> int:
    return (deployment.spec.replicas if deployment.spec else None) or 0


def _is_young(marked: Marked) -> bool:
    """Whether it was wanted lately; clocks of workers may differ by a part of that."""
    seconds = annotation_of(marked, STARTED).partition("/")[0]
    return seconds.isdigit() and time.time() - int(seconds) < GRACE_SECONDS
