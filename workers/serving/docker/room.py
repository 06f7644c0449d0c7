"""How many images run on one machine: the one that rested longest makes room for the next."""

from shared.database import database
from shared.errors import ErrorClass, WorkError
from shared.models import Instance, InstanceState
from shared.instances.states import begin_draining, running_instances
from shared.settings import settings
from workers.serving.health import ask_health


def free_capacity() -> None:
    """Make sure that one more may be started.

    Raises:
        WorkError: as many run as may; the one that is idle longest, if any is, was told to end (unavailable: the job
            looks again).
    """
    most = settings().serving_max_instances
    with database().reading() as session:
        there = [instance for instance in running_instances(session) if instance.state != InstanceState.WANTED]
    if len(there) < most:
        return
    idle = {instance.id: _idle_seconds(instance) for instance in there if instance.state == InstanceState.READY}
    longest = max(idle, key=lambda instance_id: idle[instance_id], default=None)
    if longest is not None and idle[longest] > 0:
        with database().writing() as session:
            begin_draining(session, longest, "Makes room for another algorithm.")
    raise WorkError(
        ErrorClass.UNAVAILABLE,
        f"{len(there)} algorithms run on this machine, as many as may (LONGSHORE_SERVING_MAX_INSTANCES); it waits for room",
    )


def _idle_seconds(instance: Instance) -> float:
    health = ask_health(instance.endpoint or "")
    return 0.0 if health is None or health.idle_seconds is None else health.idle_seconds
