"""The serving backend for a Kubernetes cluster. The cluster's own objects hold its whole state."""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from kubernetes.client import V1Deployment
from typing_extensions import override

from shared.cancellation import CancelToken
from shared.db.models import Instance
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.settings.serving import ServingSettings
from workers.kubernetes.cluster import (
    Cluster,
    KubernetesObject,
    annotation_of,
    change_object,
    cluster_errors,
    if_exists,
    is_terminating,
    label_of,
    name_of,
)
from workers.runner import PORT
from workers.serving.backend import InstanceSpec, ObservedInstance, ServingBackend, StartedInstance
from workers.serving.kubernetes.labels import (
    INSTANCE,
    PULL_SECRET_SELECTOR,
    REGISTRY,
    RESTARTED,
    RUNNER_SELECTOR,
    STARTED,
    VERSION,
    version_name,
)
from workers.serving.kubernetes.objects import deployment_of, egress_policy, isolated_policy, service_of
from workers.serving.kubernetes.pulls import pull_secret
from workers.serving.kubernetes.rollout import await_rollout, may_recover, pod_problem

ORPHAN_GRACE_SECONDS = 600
"""What was started later than this is kept without a row: the rows may have been read before its own was written."""


class KubernetesBackend(ServingBackend):
    """Runs each version as a Deployment behind a Service; another image of the version is a rolling update."""

    one_per_version = True

    def __init__(self, settings: ServingSettings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster

    @override
    def start(self, spec: InstanceSpec, report: Callable[[str], None], stop: CancelToken) -> StartedInstance:
        if spec.registry is None:
            raise WorkError(
                ErrorClass.INVALID,
                "A cluster pulls from registries only: push the version to a registry, then call again.",
            )
        cluster, start_id = self._cluster, f"{time.time():.0f}/{uuid.uuid4()}"
        if spec.credentials is not None:
            cluster.apply(cluster.core.patch_namespaced_secret, pull_secret(spec.registry, spec.credentials, start_id))
        # Before the pods, so that none of them runs without it.
        isolated = spec.instance.network == "isolated"
        policy = isolated_policy() if isolated else egress_policy(self._settings, cluster.api_addresses())
        cluster.apply(cluster.networking.patch_namespaced_network_policy, policy)
        cluster.apply(cluster.core.patch_namespaced_service, service_of(spec))
        applied = cluster.apply(cluster.apps.patch_namespaced_deployment, deployment_of(spec, self._settings, start_id))
        try:
            await_rollout(
                cluster, applied, report, stop,
                with_secret=spec.credentials is not None, load_seconds=self._settings.serving_start_seconds,
            )  # fmt: skip
        except (WorkCancelledError, WorkError):
            # A worker that took the start over has applied it again, with another start id. If the cluster does not
            # respond, the first error is still the one to raise, and `remove_orphans` ends the pods.
            with suppress(WorkError):
                self._scale_to_zero(spec.instance.version_id, _has_start(start_id))
            raise
        name = name_of(applied)
        return StartedInstance(endpoint=f"http://{name}.{cluster.namespace}.svc:{PORT}", runtime_ref=name)

    @override
    def observe(self, instances: Sequence[Instance]) -> Mapping[str, ObservedInstance]:
        """Return the state of the pods, with two requests for any number of instances."""
        with cluster_errors("list instances"):
            deployments = self._list(self._cluster.apps.list_namespaced_deployment)
            pods = self._list(self._cluster.core.list_namespaced_pod)
        desired = {label_of(deployment, INSTANCE) for deployment in deployments if _replicas(deployment)}
        requested = {instance.id for instance in instances}
        # A Deployment replaces the pods of a lost node, so its instance is alive without a pod for a moment.
        observed = {instance_id: ObservedInstance(alive=True) for instance_id in desired & requested}
        for pod in pods:
            instance_id = label_of(pod, INSTANCE)
            if instance_id not in requested or is_terminating(pod):
                continue
            problem = pod_problem(pod) if instance_id in desired else None
            if problem is None:
                observed[instance_id] = ObservedInstance(alive=True)
            elif not may_recover(pod, problem):
                observed[instance_id] = ObservedInstance(alive=False, reason=problem.message)
        return observed

    @override
    def restart(self, instance: Instance) -> bool:
        """Replace the pods by a rolling update: their kubelets ask the registry again (`imagePullPolicy: Always`)."""
        annotations = {RESTARTED: datetime.now(UTC).isoformat(timespec="milliseconds")}
        self._change(
            instance.version_id,
            lambda current: label_of(current, INSTANCE) == instance.id,
            {"template": {"metadata": {"annotations": annotations}}},
            action="restart",
        )
        return True

    @override
    def stop(self, instance: Instance) -> None:
        """Scale the version's Deployment to zero, unless it runs another image by now."""
        self._scale_to_zero(instance.version_id, lambda current: label_of(current, INSTANCE) == instance.id)

    @override
    def remove_orphans(self, known: Collection[str], existing: Callable[[Collection[str]], Collection[str]]) -> None:
        """Scale unknown instances to zero; delete the objects of deleted versions, and Secrets without a user."""
        cluster = self._cluster
        with cluster_errors("list instances"):
            deployments = self._list(cluster.apps.list_namespaced_deployment)
            services = self._list(cluster.core.list_namespaced_service)
        versions = existing({label_of(resource, VERSION) for resource in (*deployments, *services)})
        kept = [one for one in deployments if label_of(one, VERSION) in versions or _is_young(one)]
        kept_versions = {*versions, *(label_of(deployment, VERSION) for deployment in kept)}
        used = [one for one in kept if label_of(one, INSTANCE) in known or _is_young(one)]
        used_registries = {label_of(deployment, REGISTRY) for deployment in used}
        with cluster_errors("remove orphans"):
            for deployment in deployments:
                if deployment not in kept:
                    if_exists(cluster.apps.delete_namespaced_deployment, name_of(deployment), cluster.namespace)
            for service in services:
                if label_of(service, VERSION) not in kept_versions:
                    if_exists(cluster.core.delete_namespaced_service, name_of(service), cluster.namespace)
            for secret in self._list(cluster.core.list_namespaced_secret, PULL_SECRET_SELECTOR):
                if label_of(secret, REGISTRY) not in used_registries and not _is_young(secret):
                    if_exists(cluster.core.delete_namespaced_secret, name_of(secret), cluster.namespace)
        for deployment in kept:
            if deployment not in used:
                self._scale_to_zero(label_of(deployment, VERSION), _has_start(annotation_of(deployment, STARTED)))

    def _list(self, method: Callable[..., Any], selector: str = RUNNER_SELECTOR) -> list[Any]:
        return list(method(self._cluster.namespace, label_selector=selector).items)

    def _scale_to_zero(self, version_id: str, is_meant: Callable[[V1Deployment], bool]) -> None:
        self._change(version_id, is_meant, {"replicas": 0}, action="stop")

    def _change(
        self, version_id: str, is_meant: Callable[[V1Deployment], bool], spec: dict[str, Any], *, action: str
    ) -> None:
        """Change the spec of a version's Deployment, if it has pods and `is_meant` accepts it as it is then."""
        apps, name = self._cluster.apps, version_name(version_id)

        def change(current: V1Deployment) -> dict[str, Any] | None:
            return {"spec": spec} if _replicas(current) and is_meant(current) else None

        with cluster_errors(f"{action} {name}"):
            change_object(
                apps.read_namespaced_deployment, apps.patch_namespaced_deployment, name, self._cluster.namespace,
                change=change,
            )  # fmt: skip


def _has_start(start_id: str) -> Callable[[V1Deployment], bool]:
    return lambda current: annotation_of(current, STARTED) == start_id


def _replicas(deployment: V1Deployment) -> int:
    return deployment.spec.replicas or 0


def _is_young(resource: KubernetesObject) -> bool:
    """Return whether it was started within the grace period, which is long enough for differences between clocks."""
    seconds = annotation_of(resource, STARTED).partition("/")[0]
    return seconds.isdigit() and time.time() - int(seconds) < ORPHAN_GRACE_SECONDS
