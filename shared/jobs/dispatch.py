"""Messages: messages that tell a worker to look at a job. Losing one loses no work, getting it twice does none twice."""

from dataclasses import dataclass

from shared.db.models import JobKind


class Queues:
    """The names of the Celery queues."""

    BUILDS = "builds"
    PUSHES = "pushes"
    SERVING = "serving"
    NODES = "nodes"
    MAINTENANCE = "maintenance"
    ALL = (BUILDS, PUSHES, SERVING, NODES, MAINTENANCE)


TASKS = {
    JobKind.COMPILE: ("longshore.build", Queues.BUILDS),
    JobKind.PUSH: ("longshore.push", Queues.PUSHES),
    JobKind.SERVE: ("longshore.serve", Queues.SERVING),
    JobKind.REFRESH: ("longshore.refresh", Queues.NODES),
}
"""Which task on which queue does a kind of job; a publish has none, it is settled with its build."""


@dataclass(frozen=True)
class JobMessage:
    """One job that may be due; all that a message carries is its id."""

    job_id: str
    kind: JobKind

    @property
    def task(self) -> str:
        """The name of the Celery task."""
        return TASKS[self.kind][0]

    @property
    def queue(self) -> str:
        """The name of the Celery queue."""
        return TASKS[self.kind][1]
