"""A fake pool: it stands in for the nodes of a cluster, and proves nothing of one. Its nodes are names in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.nodes.node_pool import DrainPlan, Node, RestartHook

During = Callable[["FakeNodePool", str, CancelToken], None]


@dataclass
class FakeNodePool:
    """Keeps what `Fleet` promises: cordoned with a mark, uncordoned however `refresh` ends."""

    names: list[str] = field(default_factory=lambda: ["node-1", "node-2", "node-3"])
    during: During = lambda _fleet, _name, _stop: None
    """What happens between a node's cordon and its uncordon."""
    marks: dict[str, str] = field(default_factory=dict)
    """Whose each cordoned node is."""
    done: list[str] = field(default_factory=list)
    """Each node that was refreshed, in order."""
    leaves_cordoned: bool = False
    """As if the worker was killed in the middle: nothing is put back."""

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
