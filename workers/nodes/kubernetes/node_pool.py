"""The worker nodes of a Kubernetes cluster. The state of a refresh is on the node itself, so any worker can resume."""

from collections.abc import Callable
from contextlib import suppress

from typing_extensions import override

from shared.cancellation import CancelToken
from shared.errors import WorkError
from shared.settings.serving import ServingSettings
from workers.kubernetes.cluster import Cluster, name_of
from workers.nodes.kubernetes.cordon import Cordon, cordon_state_of, uncordon_node
from workers.nodes.kubernetes.drain import drain_node, exhausted_budgets
from workers.nodes.kubernetes.nodes import await_ready, node_errors, paths_of, pods_on, read_node
from workers.nodes.node_pool import DrainPlan, NodePool, RestartHook


class KubernetesNodePool(NodePool):
    """Refreshes nodes as `kubectl drain` and `kubectl uncordon` do, and keeps the state on the nodes."""

    def __init__(self, settings: ServingSettings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster

    @override
    def node_names(self) -> list[str]:
        selector = ",".join(f"{key}={value}" for key, value in self._settings.kubernetes_node_labels.items())
        with node_errors("list its nodes"):
            return sorted(map(name_of, self._cluster.core.list_node(label_selector=selector).items))

    @override
    def plan(self, name: str) -> DrainPlan:
        read_node(self._cluster, name)
        with node_errors(f"list the pods of node {name}"):
            pods = pods_on(self._cluster, name)
            return DrainPlan(
                evicted=paths_of(pods.evictable),
                stay=paths_of(pods.staying),
                waits_for=tuple(exhausted_budgets(self._cluster, pods.evictable)),
                refused_for=paths_of(pods.unmanaged),
            )

    @override
    def refresh(
        self, name: str, job_id: str, restart: RestartHook | None, report: Callable[[str], None], stop: CancelToken
    ) -> None:
        """Do the steps that are left, and uncordon the node however they end."""
        cordon = Cordon(self._cluster, name, job_id)
        try:
            self._refresh(cordon, name, restart, report, stop)
        except BaseException:
            # If the cluster does not respond, the first error is still the one to raise; `uncordon` is called later.
            with suppress(WorkError):
                cordon.release()
            raise
        cordon.release()

    @override
    def uncordon(self, job_id: str) -> list[str]:
        """Uncordon the nodes of the job among all nodes: their labels may have changed meanwhile."""
        with node_errors("list its nodes"):
            listed = self._cluster.core.list_node()
        states = {name_of(node): cordon_state_of(node) for node in listed.items}
        names = sorted(name for name, state in states.items() if state and state.job_id == job_id)
        for name in names:
            uncordon_node(self._cluster, name, lambda state: state.job_id == job_id)
        return names

    def _refresh(
        self, cordon: Cordon, name: str, restart: RestartHook | None, report: Callable[[str], None], stop: CancelToken
    ) -> None:
        stop.check()
        state = cordon.acquire()
        cordoned = "was cordoned by somebody else, and stays so" if state.cordoned_before else "is cordoned"
        report(f"Node {name} {cordoned}.")
        if state.restarted_at is None:
            drain_node(
                self._cluster, name, cordon.read_node, report, stop,
                timeout_seconds=self._settings.node_drain_timeout_seconds,
            )  # fmt: skip
            report(f"Node {name} is empty.")
            if restart is not None:
                stop.check()
                # Recorded before it is requested: otherwise a worker that resumes could restart the node a second time,
                # when it may have pods again. A restart that was recorded but not requested ends in the timeout below.
                state = cordon.record_restart()
                report(f"Requests the restart of node {name}.")
                restart(name)
        await_ready(
            name, cordon.read_node, report, stop,
            previous_boot_id=state.boot_id if state.restarted_at is not None else None,
            timeout_seconds=self._settings.node_ready_seconds,
        )  # fmt: skip
        report(f"Node {name} is ready.")
