"""The light way: what runs is started anew, so that the registry is asked again; no node is touched."""

from collections.abc import Callable, Sequence

from sqlalchemy import select

from shared.database import database
from shared.models import Instance, InstanceState, StepState
from shared.refreshes.progress import RefreshStep
from shared.instances.states import begin_draining
from shared.stopping import CancelToken
from workers.serving.chosen import backend

WHY = "It was to be pulled afresh."


def restart_runners(entries: Sequence[RefreshStep], moved: Callable[[], None], stop: CancelToken) -> None:
    """Have each that has not ended pulled and started anew.

    Raises:
        Stopped: the stop was asked for.
        WorkError: what runs them does not answer.
    """
    for entry in entries:
        if entry.ended:
            continue
        stop.check()
        entry.state, entry.step = StepState.RUNNING, "Is started anew."
        moved()
        entry.state, entry.step = _restart(str(entry.instance_id))


def _restart(instance_id: str) -> tuple[StepState, str]:
    with database().reading() as session:
        instance = session.scalars(select(Instance).where(Instance.id == instance_id)).one()
    if instance.state != InstanceState.READY:
        return StepState.SKIPPED, "It took no more calls by then."
    if backend().restart(instance):
        return StepState.DONE, "Its pods are replaced by ones that pull afresh, while it takes calls."
    with database().writing() as session:
        begin_draining(session, instance_id, WHY)
    return StepState.DONE, "It takes no new calls; the next one starts it anew, which asks the registry again."
