"""The Celery application: queues, limits, and what a worker process does when it starts (design: parts).

The pool's processes: forked while the parent has no database open, ended with the parent however that ends.

A process of the pool that is forked in the middle of another thread's transaction inherits SQLite's own notes of who
in this process holds the write lock, but not the thread that would give it back: every write of that process fails
with "database is locked" (sqlite.org, "How To Corrupt An SQLite Database File", section 2.6). The pool is forked
when the worker starts, and again whenever one of its processes ends.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init
from kombu.entity import Queue

from shared.db.engine import Database, database
from shared.jobs.queues import Queues
from shared.logging import configure_logs
from shared.settings import settings
from workers.jobs.tempdirs import remove_abandoned_directories

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
        # A message is a message: it may come twice or be lost, the row decides. Late acknowledgement and rejection
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
        # `cli.graceful_shutdown` waits while jobs run; Celery's own wait is the full time, whatever runs.
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
            "longshore.reconcile": Queues.SERVING,
            "longshore.refresh": Queues.NODES,
            "longshore.uncordon": Queues.NODES,
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
    remove_abandoned_directories()  # of the process in whose place this one is, if that was killed


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log_as_everywhere(**_kwargs: Any) -> None:
    configure_logs(settings(), process="worker")


PR_SET_PDEATHSIG = 1
_pool_parent = os.getpid()
"""The process that imported this first: the worker's own, since its pool is forked from it."""

_no_fork = threading.Lock()
os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)


@contextlib.contextmanager
def opened_between_forks(database: Database) -> Iterator[Database]:
    """The database for the length of the block; whoever wants to fork waits until its connections are closed again."""
    with _no_fork:
        try:
            yield database
        finally:
            database.close()


def end_with_parent() -> None:
    """In a process of the pool: be killed when the worker ends, even where that was killed itself (prctl(2)).

    Elsewhere than on Linux nothing happens: there the pool's processes end when they next ask for work.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != _pool_parent:
            os._exit(1)
