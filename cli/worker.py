"""`longshore worker`: run a Celery worker on some of the queues."""

import os
import sys

import click

from cli.common import data_dir_option
from cli.runtime import start_service
from shared.jobs.queues import Queues


def _queues(_ctx: click.Context, _option: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names or not set(names) <= set(Queues.ALL):
        raise click.BadParameter(f"comma-separated names out of {', '.join(Queues.ALL)}")
    return list(dict.fromkeys(names))


@click.command("worker")
@click.option(
    "--queues",
    default=",".join(Queues.ALL),
    show_default=True,
    metavar="NAMES",
    callback=_queues,
    help="Queues to work on. builds, pushes and serving need a Docker engine (DOCKER_HOST), "
    "nodes (and then serving) a cluster.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Jobs at the same time. Default: LONGSHORE_WORKER_CONCURRENCY.",
)
@data_dir_option
def command(queues: list[str], concurrency: int | None) -> None:
    """Run a worker.

    On SIGTERM it takes no more jobs, waits LONGSHORE_SHUTDOWN_SECONDS for those in progress, then releases them to
    other workers. The jobs of a worker that is killed are taken over when its leases expire.
    """
    configured = start_service("worker")
    # Celery reads this when it is imported, so the import is below. Without it, SIGTERM waits for the end of every job,
    # without a limit.
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    from cli.worker_process import work  # noqa: PLC0415

    sys.exit(work(configured, queues, concurrency or configured.worker_concurrency))
