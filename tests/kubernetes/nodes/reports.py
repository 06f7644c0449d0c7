"""Refresh node n1, with its reported messages and what happens at each of them."""

import json
from collections.abc import Callable

from shared.cancellation import CancelToken
from tests.kubernetes.nodes.worker_nodes import REFRESH, node_of
from tests.kubernetes.simulated import Document, SimulatedApi
from workers.nodes.kubernetes.node_pool import KubernetesNodePool
from workers.nodes.node_pool import RestartHook

JOB = "job-1"
Say = Callable[[str], None]


class Reports:
    """Collects the reported messages without repetitions, and calls functions at messages with a given beginning."""

    def __init__(self, **events: Callable[[], object]) -> None:
        self.messages: list[str] = []
        self._events = {name.replace("_", " "): event for name, event in events.items()}

    def __call__(self, text: str) -> None:
        if text in self.messages:
            return
        self.messages.append(text)
        for beginning in [name for name in self._events if text.startswith(name)]:
            self._events.pop(beginning)()


def refresh(
    pool: KubernetesNodePool,
    say: Say | None = None,
    restart: RestartHook | None = None,
    stop: CancelToken | None = None,
) -> None:
    pool.refresh("n1", JOB, restart, say or Reports(), stop or CancelToken())


def names(api: SimulatedApi) -> list[str]:
    return [pod["metadata"]["name"] for pod in api.all("pods")]


def state_on(api: SimulatedApi) -> Document:
    return dict(json.loads(node_of(api, "n1")["metadata"]["annotations"][REFRESH]))
