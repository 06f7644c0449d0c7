"""The Celery tasks: each takes a message, or the beat's tick, to the work."""

from functools import partial

from workers.app import HARD_LIMIT_MARGIN_SECONDS, REFRESH_SECONDS, celery
from workers.builds.build import BuildWork
from workers.jobs.executor import run_job, run_next_push
from workers.maintenance.deliver_webhooks import deliver
from workers.maintenance.drift import check_drift_on_tick
from workers.maintenance.sweep import sweep_on_tick
from workers.nodes.refresh import RefreshWork, uncordon_after_lost_workers
from workers.pushes.push import PushWork
from workers.serving.reconcile import reconcile_on_tick
from workers.serving.start import ServeWork, restart_instance


@celery.task(name="longshore.build")  # type: ignore[untyped-decorator]
def build(job_id: str) -> None:
    """Build the image of a compile job."""
    run_job(job_id, BuildWork)


@celery.task(name="longshore.push")  # type: ignore[untyped-decorator]
def push(job_id: str) -> None:
    """Push an image: that of this job, or of another whose turn comes before it."""
    run_next_push(job_id, PushWork)


@celery.task(name="longshore.serve")  # type: ignore[untyped-decorator]
def serve(job_id: str) -> None:
    """Run a version's image for its callers."""
    run_job(job_id, ServeWork)


@celery.task(name="longshore.reconcile")  # type: ignore[untyped-decorator]
def reconcile_now() -> None:
    reconcile_on_tick()


@celery.task(  # type: ignore[untyped-decorator]
    name="longshore.refresh",
    soft_time_limit=REFRESH_SECONDS,
    time_limit=REFRESH_SECONDS + HARD_LIMIT_MARGIN_SECONDS,
)
def refresh(job_id: str) -> None:
    """Refresh nodes or running instances."""
    run_job(job_id, partial(RefreshWork, restart_instance=restart_instance))


@celery.task(name="longshore.uncordon")  # type: ignore[untyped-decorator]
def uncordon_now() -> None:
    uncordon_after_lost_workers()


@celery.task(name="longshore.sweep")  # type: ignore[untyped-decorator]
def sweep_now() -> None:
    """Find what fell through."""
    sweep_on_tick()


@celery.task(name="longshore.drift")  # type: ignore[untyped-decorator]
def look_for_drift_now() -> None:
    """Ask whether registries still have what executions rely on."""
    check_drift_on_tick()


@celery.task(name="longshore.deliver")  # type: ignore[untyped-decorator]
def deliver_now() -> None:
    """Send what is due to webhooks."""
    deliver()
