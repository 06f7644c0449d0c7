"""The worker nodes of a Kubernetes cluster. How far a refresh is stands on the node itself, so any worker goes on."""

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from shared.cancellation import CancelToken
from shared.errors import WorkError
from shared.settings.serving import ServingSettings
from workers.kubernetes.cluster import REQUEST_SECONDS, Cluster
from workers.kubernetes.labels import name_of
from workers.nodes.fleet import Node, Plan, Restart
from workers.nodes.kubernetes.cordon import Cordon, cordon_state_of, uncordon
from workers.nodes.kubernetes.drain import drain_node, refusing_budgets
from workers.nodes.kubernetes.nodes import asking, await_ready, is_cordoned, is_ready, read_node
from workers.nodes.kubernetes.pods import paths_of, pods_of


class KubernetesFleet:
    """Refreshes nodes as `kubectl drain` and `kubectl uncordon` do, and keeps what it must know on the nodes."""

    def __init__(self, settings: ServingSettings, cluster: Cluster | None = None) -> None:
        self._settings = settings
        self._given = cluster

    @cached_property
    def _cluster(self) -> Cluster:
        return self._given or Cluster.connect(self._settings.kubernetes_namespace)

    def nodes(self) -> list[Node]:
        """The nodes that algorithms run on."""
        selector = ",".join(f"{name}={value}" for name, value in self._settings.kubernetes_node_labels.items())
        with asking("name its nodes"):
            found = self._cluster.core.list_node(label_selector=selector, _request_timeout=REQUEST_SECONDS).items
        nodes = (Node(name_of(node), ready=is_ready(node), cordoned=is_cordoned(node)) for node in found)
        return sorted(nodes, key=lambda node: node.name)

    def plan(self, name: str) -> Plan:
        """Which pods would go, and what would keep them."""
        read_node(self._cluster, name)
        with asking(f"say what runs on node {name}"):
            pods = pods_of(self._cluster, name)
            return Plan(
                evicted=paths_of(pods.go),
                stay=paths_of(pods.stay),
                waits_for=tuple(refusing_budgets(self._cluster, pods.go)),
                refused_for=paths_of(pods.unmanaged),
            )

    def refresh(
        self, name: str, mark: str, restart: Restart | None, say: Callable[[str], None], stop: CancelToken
    ) -> None:
        """Go through the steps that are left, and have the node be as schedulable as it was, however that ends."""
        hold = Cordon(self._cluster, name, mark)
        try:
            self._go(hold, name, restart, say, stop)
        except BaseException:
            # Where the cluster is away now, what ended the refresh is still what is said, and `release` lets go.
            with suppress(WorkError):
                hold.uncordon()
            raise
        hold.uncordon()

    def release(self, mark: str) -> list[str]:
        """Let go of every node with the mark, whatever its labels are by now."""
        with asking("name its nodes"):
            found = self._cluster.core.list_node(_request_timeout=REQUEST_SECONDS).items
        marks = {name_of(node): cordon_state_of(node) for node in found}
        marked = sorted(name for name, found_mark in marks.items() if found_mark and found_mark.mark == mark)
        for name in marked:
            uncordon(self._cluster, name, lambda now: now.mark == mark)
        return marked

    def _go(
        self, hold: Cordon, name: str, restart: Restart | None, say: Callable[[str], None], stop: CancelToken
    ) -> None:
        stop.check()
        mark = hold.take()
        elsewhere = "was cordoned by somebody else, and stays so" if mark.cordoned_elsewhere else "is cordoned"
        say(f"Node {name} {elsewhere}.")
        if mark.restarted_at is None:
            drain_node(
                self._cluster, name, hold.look, say, stop, within_seconds=self._settings.node_drain_timeout_seconds
            )
            say(f"Node {name} is empty.")
            if restart is not None:
                stop.check()
                # Written first: whoever goes on could otherwise have it restarted a second time, which could hit the
                # node when it has taken pods again. A restart that was noted and never asked for is found by waiting.
                mark = hold.note_restart()
                say(f"Has node {name} restarted.")
                restart(name)
        await_ready(
            name, hold.look, say, stop,
            not_boot=mark.boot_id if mark.restarted_at is not None else None,
            within_seconds=self._settings.node_ready_seconds,
        )  # fmt: skip
        say(f"Node {name} is ready.")
