"""A fake node pool whose nodes are names in memory. It proves nothing about a real cluster."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.nodes.node_pool import DrainPlan, RestartHook

During = Callable[["FakeNodePool", str, CancelToken], None]


@dataclass
class FakeNodePool:
    """Behaves as `NodePool` describes: a node is cordoned by a job, and uncordoned however `refresh` ends."""

    names: list[str] = field(default_factory=lambda: ["node-1", "node-2", "node-3"])
    during: During = lambda _nodes, _name, _stop: None
    """Called while a node is cordoned."""
    cordoned: dict[str, str] = field(default_factory=dict)
    """The job of each cordoned node."""
    done: list[str] = field(default_factory=list)
    """The refreshed nodes, in order."""
    uncordon_calls: list[str] = field(default_factory=list)
    """The job of each call of `uncordon`."""
    leaves_cordoned: bool = False
    """Leaves the node cordoned, as a worker does that is killed."""

    def node_names(self) -> list[str]:
        return list(self.names)

    def plan(self, name: str) -> DrainPlan:
        return DrainPlan((f"default/pod-of-{name}",), ("kube-system/proxy",), ("default/budget",))

    def refresh(
        self, name: str, job_id: str, restart: RestartHook | None, report: Callable[[str], None], stop: CancelToken
    ) -> None:
        if name not in self.names:
            raise WorkError(ErrorClass.NOT_FOUND, f"There is no node {name} any more.")
        self.cordoned[name] = job_id
        report(f"Cordoned {name}.")
        try:
            self.during(self, name, stop)
            stop.check()
            if restart is not None:
                restart(name)
        finally:
            if not self.leaves_cordoned:
                del self.cordoned[name]
        self.done.append(name)

    def uncordon(self, job_id: str) -> list[str]:
        self.uncordon_calls.append(job_id)
        if self.leaves_cordoned:
            return []
        names = [name for name, owner in self.cordoned.items() if owner == job_id]
        for name in names:
            del self.cordoned[name]
        return names
