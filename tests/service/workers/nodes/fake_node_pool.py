"""A fake node pool whose nodes are names in memory. It proves nothing about a real cluster."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.nodes.node_pool import DrainPlan, Node, RestartHook

During = Callable[["FakeNodePool", str, CancelToken], None]


@dataclass
class FakeNodePool:
    """Behaves as `NodePool` describes: a node is cordoned by a job, and uncordoned however `refresh` ends."""

    names: list[str] = field(default_factory=lambda: ["node-1", "node-2", "node-3"])
    during: During = lambda _fleet, _name, _stop: None
    """Called while a node is cordoned."""
    marks: dict[str, str] = field(default_factory=dict)
    """The job of each cordoned node."""
    done: list[str] = field(default_factory=list)
    """The refreshed nodes, in order."""
    leaves_cordoned: bool = False
    """Leaves the node cordoned, as a worker does that is killed."""

    def nodes(self) -> list[Node]:
        return [Node(name, ready=True, cordoned=name in self.marks) for name in self.names]

    def plan(self, name: str) -> DrainPlan:
        return DrainPlan((f"default/pod-of-{name}",), ("kube-system/proxy",), ("default/budget",))

    def refresh(
        self, name: str, mark: str, restart: RestartHook | None, say: Callable[[str], None], stop: CancelToken
    ) -> None:
        if name not in self.names:
            raise WorkError(ErrorClass.NOT_FOUND, f"There is no node {name} any more.")
        self.marks[name] = mark
        say(f"Cordoned {name}.")
        try:
            self.during(self, name, stop)
            stop.check()
            if restart is not None:
                restart(name)
        finally:
            if not self.leaves_cordoned:
                del self.marks[name]
        self.done.append(name)

    def uncordon(self, mark: str) -> list[str]:
        released = [name for name, known in self.marks.items() if known == mark]
        for name in released:
            del self.marks[name]
        return released
