"""`longshore worker`: a Celery worker on some of the queues."""

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
    help="Which queues to work on. builds, pushes and serving need a Docker engine (DOCKER_HOST), "
    "nodes (and then serving) a cluster.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Jobs at the same time; LONGSHORE_WORKER_CONCURRENCY where it is left out.",
)
@data_dir_option
def command(queues: list[str], concurrency: int | None) -> None:
    """Run a worker.

    On SIGTERM it takes no more jobs, lets those that run go on for LONGSHORE_SHUTDOWN_SECONDS, then hands them back
    to other workers. A worker that is killed is replaced as soon as its leases run out.
    """
    configured = start_service("worker")
    # Read when Celery is imported, which is why that is not done above: without it SIGTERM waits for every job to
    # end, however long that takes.
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    from cli.worker_process import work  # noqa: PLC0415

    sys.exit(work(configured, queues, concurrency or configured.worker_concurrency))
