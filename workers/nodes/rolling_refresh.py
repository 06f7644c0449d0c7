"""Refresh or plan nodes one after the other, and keep each node's step up to date."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from shared.cancellation import CancelToken
from shared.db.models import StepState
from shared.errors import ErrorClass, WorkError
from shared.refreshes import RefreshOptions, RefreshStep
from workers.nodes.node_pool import NodePool, RestartHook


def steps_for_nodes(pool: NodePool, options: RefreshOptions, done_before: Collection[str]) -> list[RefreshStep]:
    """Return a step for each node to refresh, by name; nodes that the last refresh completed come last.

    Raises:
        WorkError: there are no nodes, or none with a requested name (not_found).
    """
    existing = pool.node_names()
    unknown = sorted(set(options.nodes).difference(existing))
    if unknown:
        raise WorkError(
            ErrorClass.NOT_FOUND,
            f"No worker node is called {', '.join(unknown)}: name nodes that have the labels of worker nodes.",
        )
    if not existing:
        raise WorkError(
            ErrorClass.NOT_FOUND,
            "No node has the labels of worker nodes (LONGSHORE_KUBERNETES_NODE_SELECTOR): label them.",
        )
    return [
        RefreshStep(name) for name in sorted(options.nodes or existing, key=lambda name: (name in done_before, name))
    ]


def refresh_nodes(
    pool: NodePool,
    steps: Sequence[RefreshStep],
    job_id: str,
    restart: RestartHook | None,
    save: Callable[[], None],
    record_progress: Callable[[], None],
    stop: CancelToken,
) -> None:
    """Refresh the nodes of the steps that have not ended; a node that does not exist any more is skipped.

    `save` writes the steps before each node is changed. Nothing is uncordoned first: only the first step that has not
    ended can have a node that an earlier worker of this job left cordoned, and `NodePool.refresh` resumes it.

    Raises:
        WorkCancelledError: the refresh was cancelled.
        WorkError: a node could not be refreshed; its step still says what was being done.
    """
    for step in [step for step in steps if not step.ended]:
        stop.check()
        step.state, step.step = StepState.RUNNING, "Its refresh begins."
        save()
        record_progress()

        def report(message: str, step: RefreshStep = step) -> None:
            step.step = message
            record_progress()

        try:
            with _skipped_if_gone(step):
                pool.refresh(step.name, job_id, restart, report, stop)
                step.state, step.step = StepState.DONE, "It is ready, and pulls images again."
        except WorkError as error:
            raise WorkError(
                error.error_class, f"{step.name}: {error.message}", retry_after=error.retry_after
            ) from error


def plan_nodes(
    pool: NodePool, steps: Sequence[RefreshStep], record_progress: Callable[[], None], stop: CancelToken
) -> None:
    """Write to each step what refreshing its node would do; change no node.

    Raises:
        WorkCancelledError: the refresh was cancelled.
        WorkError: the cluster does not respond.
    """
    for step in [step for step in steps if not step.ended]:
        stop.check()
        record_progress()
        with _skipped_if_gone(step):
            plan = pool.plan(step.name)
            step.plan = {group: [*paths] for group, paths in asdict(plan).items()}
            would = f"{len(plan.evicted)} pods would be evicted" if not plan.refused_for else "it would be refused"
            step.state, step.step = StepState.SKIPPED, f"Nothing was done: {would}."


@contextmanager
def _skipped_if_gone(step: RefreshStep) -> Iterator[None]:
    try:
        yield
    except WorkError as error:
        if error.error_class != ErrorClass.NOT_FOUND:
            raise
        step.state, step.step = StepState.SKIPPED, error.message
