"""Limit the instances of an owner, and of a machine; drain an idle instance if a limit is reached."""

from collections import Counter

from shared.db.engine import database
from shared.db.models import Instance, InstanceState
from shared.errors import ErrorClass, WorkError
from shared.instances.states import begin_draining, running_instances
from shared.settings import settings
from workers.serving.health import read_health


def free_capacity_of_owner(owner: str) -> None:
    """Check that one more instance of this owner may start; if not, drain its instance that is idle longest.

    Raises:
        WorkError: the owner has the maximum number of instances (unavailable, so the job is retried).
    """
    running = [instance for instance in _started_instances() if instance.owner == owner]
    if len(running) >= settings().serving_max_instances_per_owner:
        _drain_idlest(running)
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"{len(running)} algorithms of {owner} run, the maximum (LONGSHORE_SERVING_MAX_INSTANCES_PER_OWNER): this "
            "one starts once another has ended.",
        )


def free_capacity(owner: str) -> None:
    """Check that one more instance may start on this machine; if not, drain one.

    It is the one that is idle longest among the instances of the owner itself and of owners who have more than it.

    Raises:
        WorkError: the maximum number of instances runs (unavailable, so the job is retried).
    """
    running = _started_instances()
    if len(running) >= settings().serving_max_instances:
        numbers = Counter(instance.owner for instance in running)
        _drain_idlest([each for each in running if each.owner == owner or numbers[each.owner] > numbers[owner]])
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"{len(running)} algorithms run on this machine, the maximum (LONGSHORE_SERVING_MAX_INSTANCES): this one "
            "starts once another has ended.",
        )


def _started_instances() -> list[Instance]:
    with database().reading() as session:
        return [instance for instance in running_instances(session) if instance.state != InstanceState.PENDING]


def _drain_idlest(instances: list[Instance]) -> None:
    idle = {instance.id: _idle_seconds(instance) for instance in instances if instance.state == InstanceState.READY}
    idlest = max(idle, key=lambda instance_id: idle[instance_id], default=None)
    if idlest is not None and idle[idlest] > 0:
        with database().writing() as session:
            begin_draining(session, idlest, "It was idle, and another algorithm needs its capacity.")


def _idle_seconds(instance: Instance) -> float:
    health = read_health(instance.endpoint or "")
    return 0.0 if health is None or health.idle_seconds is None else health.idle_seconds
