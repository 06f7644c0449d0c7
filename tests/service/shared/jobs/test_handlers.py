"""Every kind of job has a handler; the tasks that they name exist, each on its queue."""

from shared.db.models import JobKind
from shared.jobs.handlers import HANDLERS, TASKS
from shared.jobs.queues import Queues
from workers.app import celery


def test_every_kind_has_a_handler() -> None:
    assert list(HANDLERS) == list(JobKind)


def test_every_task_is_registered_and_routed_to_its_queue() -> None:
    celery.loader.import_default_modules()
    for task in TASKS.values():
        assert task.name in celery.tasks
        assert celery.conf.task_routes[task.name] == task.queue
        assert task.queue in Queues.ALL
