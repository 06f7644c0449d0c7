"""`longshore beat`: run the scheduler of periodic tasks."""

import click

from cli.common import data_dir_option
from cli.runtime import start_service


@click.command("beat")
@data_dir_option
def command() -> None:
    """Run the scheduler of periodic tasks: it dispatches due jobs again and reports stalled pushes.

    One of these is enough; two do no harm.
    """
    configured = start_service("beat")
    configured.data_dir.mkdir(parents=True, exist_ok=True)
    # Importing Celery's application reads the settings, so it is done after they are checked.
    from workers.app import celery  # noqa: PLC0415

    schedule = str(configured.data_dir / "beat-schedule")
    celery.Beat(schedule=schedule, loglevel=configured.log_level.upper(), quiet=True).run()
