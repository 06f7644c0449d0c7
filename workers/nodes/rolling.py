"""Node after node: which there are, in which order, and what is done to each."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict

from shared.cancellation import CancelToken
from shared.db.models import StepState
from shared.errors import ErrorClass, WorkError
from shared.refreshes import RefreshOptions, RefreshStep
from workers.nodes.fleet import Fleet, Restart


def steps_for(fleet: Fleet, options: RefreshOptions, done_before: Collection[str]) -> list[RefreshStep]:
    """The nodes to refresh, by name; those that the last refresh did not get done come first.

    Raises:
        WorkError: there are none, or none of a name that was ordered (not_found).
    """
    there = {node.name for node in fleet.nodes()}
    unknown = sorted(set(options.nodes) - there)
    if unknown:
        message = f"No worker node is called {', '.join(unknown)}: name nodes that have the labels of worker nodes."
        raise WorkError(ErrorClass.NOT_FOUND, message)
    if not there:
        message = "No node has the labels of worker nodes (LONGSHORE_KUBERNETES_NODE_SELECTOR): label them."
        raise WorkError(ErrorClass.NOT_FOUND, message)
    names = sorted(options.nodes or there, key=lambda name: (name in done_before, name))
    return [RefreshStep(name) for name in names]


def refresh_nodes(
    fleet: Fleet,
    entries: Sequence[RefreshStep],
    mark: str,
    restart: Restart | None,
    keep: Callable[[], None],
    moved: Callable[[], None],
    stop: CancelToken,
) -> None:
    """Refresh those that have not ended, one by one; a node that is gone by then is skipped.

    `keep` writes down how far each is, before the next node is touched.
    Nothing is released before: an earlier worker of this job can have left no other node cordoned than the first that
    has not ended, and with that one `Fleet.refresh` goes on.

    Raises:
        Stopped: the stop was asked for.
        WorkError: a node could not be refreshed; its entry goes on saying what was being done.
    """
    for entry in entries:
        if entry.ended:
            continue
        stop.check()
        entry.state, entry.step = StepState.RUNNING, "Its turn has come."
        keep()
        moved()
        try:
            fleet.refresh(entry.name, mark, restart, _saying(entry, moved), stop)
        except WorkError as error:
            if error.error_class != ErrorClass.NOT_FOUND:
                raise WorkError(
                    error.error_class, f"{entry.name}: {error.message}", retry_after=error.retry_after
                ) from error
            entry.state, entry.step = StepState.SKIPPED, error.message
        else:
            entry.state, entry.step = StepState.DONE, "It is ready, and pulls afresh."


def plan_nodes(fleet: Fleet, entries: Sequence[RefreshStep], moved: Callable[[], None], stop: CancelToken) -> None:
    """Find out what refreshing each would do; nothing is done.

    Raises:
        Stopped: the stop was asked for.
        WorkError: the cluster does not answer.
    """
    for entry in entries:
        if entry.ended:
            continue
        stop.check()
        moved()
        try:
            plan = fleet.plan(entry.name)
        except WorkError as error:
            if error.error_class != ErrorClass.NOT_FOUND:
                raise
            entry.state, entry.step = StepState.SKIPPED, error.message
            continue
        entry.plan = {name: [*paths] for name, paths in asdict(plan).items()}
        would = f"{len(plan.evicted)} pods would be evicted" if not plan.refused_for else "it would be refused"
        entry.state, entry.step = StepState.SKIPPED, f"Nothing was done: {would}."


def _saying(entry: RefreshStep, moved: Callable[[], None]) -> Callable[[str], None]:
    def say(text: str) -> None:
        entry.step = text
        moved()

    return say
