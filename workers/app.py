"""The Celery application: queues, limits, and what a worker process does when it starts (design: parts)."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init
from kombu.entity import Queue

from shared.database import database
from shared.jobs.nudges import Queues
from shared.logs import configure_logs
from shared.settings import settings
from workers.forking import end_with_parent
from workers.scratch import remove_left_overs

SOFT_LIMIT_MARGIN_SECONDS = 15 * 60
HARD_LIMIT_MARGIN_SECONDS = 5 * 60
REFRESH_SECONDS = 24 * 60 * 60
"""The soft time limit of a refresh, which waits for node after node. What is left then goes on in a task of its own."""
TICK_SECONDS = 60 * 60
"""A tick that nobody took for so long is dropped. The worker's own clock says how long, so it is longer than clocks
differ: with seconds, a worker whose clock is ahead would never sweep."""


def _every(seconds: float, task: str) -> dict[str, Any]:
    return {"task": task, "schedule": seconds, "options": {"expires": TICK_SECONDS}}


def create_celery() -> Celery:
    """The application, by the settings of this process."""
    soft_limit = settings().build_seconds + settings().source_seconds + SOFT_LIMIT_MARGIN_SECONDS
    hard_limit = soft_limit + HARD_LIMIT_MARGIN_SECONDS
    longest_task = max(hard_limit, REFRESH_SECONDS + HARD_LIMIT_MARGIN_SECONDS)
    app = Celery("longshore", broker=settings().redis_url, include=["workers.tasks"])
    app.conf.update(
        # A message is a nudge: it may come twice or be lost, the row decides. Late acknowledgement and rejection
        # bring it back at once when a process dies, which is sooner than the sweep would.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_soft_time_limit=soft_limit,
        task_time_limit=hard_limit,
        broker_transport_options={"visibility_timeout": longest_task + HARD_LIMIT_MARGIN_SECONDS},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a Redis that is away for an hour is waited for as well
        # A blink of Redis must not kill builds: the row's lease decides.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # `cli.worker_stopping` waits while jobs run; Celery's own wait is the full time, whatever runs.
        worker_soft_shutdown_timeout=0,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_queues=[Queue(name) for name in Queues.ALL],  # type: ignore[no-untyped-call]
        task_create_missing_queues=False,
        task_default_queue=Queues.MAINTENANCE,
        task_routes={
            "longshore.build": Queues.BUILDS,
            "longshore.push": Queues.PUSHES,
            "longshore.serve": Queues.SERVING,
            "longshore.tend": Queues.SERVING,
            "longshore.refresh": Queues.NODES,
            "longshore.release": Queues.NODES,
            "longshore.sweep": Queues.MAINTENANCE,
            "longshore.deliver": Queues.MAINTENANCE,
            "longshore.drift": Queues.MAINTENANCE,
        },
        beat_schedule={
            "sweep": _every(settings().sweep_seconds, "longshore.sweep"),
            "deliver": _every(settings().sweep_seconds, "longshore.deliver"),
            "drift": _every(settings().drift_tick_seconds, "longshore.drift"),
        },
        timezone="UTC",
    )
    return app


celery = create_celery()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _begin_in_pool(**_kwargs: Any) -> None:
    end_with_parent()
    database().forget_connections()
    remove_left_overs()  # of the process in whose place this one is, if that was killed


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log_as_everywhere(**_kwargs: Any) -> None:
    configure_logs(settings(), process="worker")
