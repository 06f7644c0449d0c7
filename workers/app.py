"""The Celery application: queues, routes, limits, and the start of a process of its pool (design: parts).

The pool is forked when the worker starts, and whenever one of its processes ends. A process that is forked while
another thread of the parent works inherits the locks that this thread holds, but not the thread that would release
them. If a module was being imported, the process waits for its lock forever at its first job. If SQLite was in a
transaction, every write of the process fails with "database is locked" (sqlite.org, "How To Corrupt An SQLite Database
File", section 2.6). So other threads of the parent work only in blocks of `between_forks` or `opened_between_forks`.
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
from shared.jobs.handlers import TASKS
from shared.jobs.queues import Queues
from shared.logging import configure_logs
from shared.settings import settings

SOFT_LIMIT_MARGIN_SECONDS = 15 * 60
HARD_LIMIT_MARGIN_SECONDS = 5 * 60
REFRESH_TIMEOUT_SECONDS = 24 * 60 * 60
"""The soft time limit of a refresh, which takes node after node. Another attempt does what is left then."""
PERIODIC_MESSAGE_EXPIRY_SECONDS = 60 * 60
"""Seconds after which the message of a periodic task is dropped. The worker compares its own clock with that of the
beat, so this is longer than clocks differ: a worker whose clock is ahead must not drop every message."""
PR_SET_PDEATHSIG = 1

_pool_parent = os.getpid()
"""The process that imported this module first: the worker's parent process, from which the pool is forked."""
_no_fork = threading.Lock()
os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)

_SOFT_LIMIT_SECONDS = settings().build_seconds + settings().source_seconds + SOFT_LIMIT_MARGIN_SECONDS
_HARD_LIMIT_SECONDS = _SOFT_LIMIT_SECONDS + HARD_LIMIT_MARGIN_SECONDS
_MAX_TASK_SECONDS = max(_HARD_LIMIT_SECONDS, REFRESH_TIMEOUT_SECONDS + HARD_LIMIT_MARGIN_SECONDS)

celery = Celery("longshore", broker=settings().redis_url, include=["workers.tasks"])
celery.conf.update(
    # A message may come twice or get lost; the job's row decides what is done (rule 1). With late acknowledgement
    # and rejection the message of a killed process comes back immediately, which is sooner than the next sweep.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    # By default Celery kills a process of the pool that is not ready after 4 s. On a busy machine its successor would
    # be killed too, and no job would be done.
    worker_proc_alive_timeout=60,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_soft_time_limit=_SOFT_LIMIT_SECONDS,
    task_time_limit=_HARD_LIMIT_SECONDS,
    broker_transport_options={"visibility_timeout": _MAX_TASK_SECONDS + HARD_LIMIT_MARGIN_SECONDS},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # however long Redis does not respond
    # A short loss of Redis must not kill builds: the lease in the job's row decides.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # `cli.graceful_shutdown` waits while jobs run; Celery's own wait always takes the full time.
    worker_soft_shutdown_timeout=0,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    task_queues=[Queue(name) for name in Queues.ALL],  # type: ignore[no-untyped-call]
    task_create_missing_queues=False,
    task_default_queue=Queues.MAINTENANCE,
    task_routes={
        **{task.name: task.queue for task in TASKS.values()},
        "longshore.load_check": Queues.BUILDS,
        "longshore.reconcile": Queues.SERVING,
        "longshore.uncordon": Queues.NODES,
        "longshore.sweep": Queues.MAINTENANCE,
        "longshore.deliver": Queues.MAINTENANCE,
        "longshore.drift": Queues.MAINTENANCE,
    },
    beat_schedule={
        name: {
            "task": f"longshore.{name}",
            "schedule": seconds,
            "options": {"expires": PERIODIC_MESSAGE_EXPIRY_SECONDS},
        }
        for name, seconds in (
            ("sweep", settings().sweep_seconds),
            ("deliver", settings().sweep_seconds),
            ("drift", settings().drift_tick_seconds),
        )
    },
    timezone="UTC",
)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _start_pool_process(**_kwargs: Any) -> None:
    _end_with_parent()
    database().forget_connections()


@setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_kwargs: Any) -> None:
    configure_logs(settings(), process="worker")


@contextlib.contextmanager
def between_forks() -> Iterator[None]:
    """Run a block during which this process does not fork. Forks wait for its end, so it must be short."""
    with _no_fork:
        yield


@contextlib.contextmanager
def opened_between_forks(database: Database) -> Iterator[Database]:
    """Yield the database. Forks wait until the block has ended and its connections are closed."""
    with _no_fork:
        try:
            yield database
        finally:
            database.close()


def _end_with_parent() -> None:
    """Have this process of the pool killed when the worker's parent process ends, even by a kill (prctl(2)).

    Only on Linux. Elsewhere the processes of the pool end when they next ask for work.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != _pool_parent:
            os._exit(1)
