"""The Celery tasks. Each calls the work that its message is for."""

from functools import partial
from typing import Any

from celery.signals import worker_process_init

from shared.settings import settings
from workers.app import HARD_LIMIT_MARGIN_SECONDS, REFRESH_TIMEOUT_SECONDS, celery
from workers.builds.build import BuildWork
from workers.builds.load_check import check_build
from workers.jobs import dispatch
from workers.jobs.executor import run_job, run_next_push
from workers.jobs.tempdirs import remove_abandoned_directories
from workers.maintenance.deliver_webhooks import deliver
from workers.maintenance.drift import check_drift_on_tick
from workers.maintenance.sweep import sweep_on_tick
from workers.nodes.refresh import RefreshWork, uncordon_after_lost_workers
from workers.pushes.push import PushWork
from workers.serving.reconcile import reconcile_on_tick
from workers.serving.start import ServeWork, restart_instance


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _clean_up(**_kwargs: Any) -> None:
    remove_abandoned_directories()  # of a killed process that this one replaces


@celery.task(name="longshore.build")  # type: ignore[untyped-decorator]
def build(job_id: str) -> None:
    run_job(job_id, BuildWork)
    # Also if the job had ended before: the process that ended it may have been killed then.
    if settings().load_check == "report":
        dispatch.send_load_check(job_id)


@celery.task(name="longshore.load_check")  # type: ignore[untyped-decorator]
def load_check(job_id: str) -> None:
    check_build(job_id)


@celery.task(name="longshore.push")  # type: ignore[untyped-decorator]
def push(job_id: str) -> None:
    """Push an image: that of this job, or of another job that the fair queue puts before it."""
    run_next_push(job_id, PushWork)


@celery.task(name="longshore.serve")  # type: ignore[untyped-decorator]
def serve(job_id: str) -> None:
    run_job(job_id, ServeWork)


@celery.task(  # type: ignore[untyped-decorator]
    name="longshore.refresh",
    soft_time_limit=REFRESH_TIMEOUT_SECONDS,
    time_limit=REFRESH_TIMEOUT_SECONDS + HARD_LIMIT_MARGIN_SECONDS,
)
def refresh(job_id: str) -> None:
    run_job(job_id, partial(RefreshWork, restart_instance=restart_instance))


reconcile = celery.task(name="longshore.reconcile")(reconcile_on_tick)
uncordon = celery.task(name="longshore.uncordon")(uncordon_after_lost_workers)
sweep = celery.task(name="longshore.sweep")(sweep_on_tick)
drift = celery.task(name="longshore.drift")(check_drift_on_tick)
deliver_webhooks = celery.task(name="longshore.deliver")(deliver)
