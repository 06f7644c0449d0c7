"""`longshore nodes`: having worker nodes, or what runs on them, pull afresh."""

import sys
import time
from collections.abc import Sequence

import click
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from cli.audit import operator
from cli.common import data_dir_option, print_table, start
from cli.errors import CommandError
from cli.registries import named_registry
from cli.runtime import open_database
from shared.algorithms import find_algorithm, find_version
from shared.audit import record
from shared.commands.cancel import cancel_job
from shared.commands.refresh import enqueue_refresh
from shared.db.engine import Database
from shared.db.models import Job, JobKind, JobState, Refresh, RefreshKind
from shared.jobs.queues import Queues
from shared.jobs.worker_processes import live_workers
from shared.refreshes import RefreshOptions, RefreshStep, RestartKind, matching_runners, read_steps

POLL_INTERVAL_SECONDS = 0.5
PLANNED = (
    ("evicted", "would go"),
    ("stay", "would stay"),
    ("waits_for", "held up by"),
    ("refused_for", "refused, for nothing would bring back"),
)
INTERRUPTED = 130
"""The exit status of what Ctrl-C ended."""


@click.group("nodes")
def command() -> None:
    """Have worker nodes, or what runs on them, pull afresh.

    These act on the database itself (LONGSHORE_DATA_DIR or LONGSHORE_DATABASE_URL), so they need no key.
    """


@command.command("refresh")
@click.option(
    "--what",
    type=click.Choice([kind.value for kind in RefreshKind]),
    default=RefreshKind.NODES.value,
    show_default=True,
    help="nodes: empty them, restart them, put them back, one by one. runners: start what runs anew.",
)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Only this node; may be given several times.")
@click.option(
    "--restart",
    type=click.Choice([kind.value for kind in RestartKind]),
    help="How a node is restarted once it is empty; as the worker's settings say where it is left out.",
)
@click.option("--registry", metavar="REGISTRY", help="Only runners that were pulled from this: its id, name or URL.")
@click.option("--algorithm", metavar="OWNER/NAME", help="Only runners of one version of this; goes with --git-hash.")
@click.option("--git-hash", metavar="HASH", help="The commit of that version, 7 characters of it or more.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--no-wait", is_flag=True, help="Order it and end, instead of showing how far it is until its end.")
@data_dir_option
def refresh(
    what: str,
    nodes: Sequence[str],
    restart: str | None,
    registry: str | None,
    algorithm: str | None,
    git_hash: str | None,
    dry_run: bool,
    no_wait: bool,
) -> None:
    """Have every worker node, or what runs, pull afresh. Ends with status 1 if that was not done.

    Ctrl-C leaves it going.
    """
    start("nodes")
    if RefreshKind(what) == RefreshKind.NODES and (registry or algorithm or git_hash):
        raise click.UsageError("--registry, --algorithm and --git-hash go with --what runners")
    if RefreshKind(what) == RefreshKind.RUNNERS and (nodes or restart):
        raise click.UsageError("--node and --restart go with --what nodes")
    if (algorithm is None) != (git_hash is None):
        raise click.UsageError("--algorithm and --git-hash go together")
    database = open_database()
    with database.reading() as session:
        version_id = None
        if algorithm is not None and git_hash is not None:
            version_id = find_version(session, find_algorithm(session, algorithm), git_hash).id
        options = RefreshOptions(
            what=RefreshKind(what),
            nodes=tuple(dict.fromkeys(nodes)),
            restart=None if restart is None else RestartKind(restart),
            version_id=version_id,
            registry_id=None if registry is None else named_registry(session, registry).id,
            dry_run=dry_run,
        )
    if dry_run and options.what == RefreshKind.RUNNERS:
        _print_runners(database, options)
        return
    job_id = _order(database, options)
    click.echo(f"Job {job_id} is ordered.", err=True)
    if no_wait:
        click.echo(job_id)
        return
    _follow(database, job_id)


@command.command("cancel")
@click.argument("job_id", metavar="JOB")
@data_dir_option
def cancel(job_id: str) -> None:
    """End the refresh JOB; the node that it is at is put back as it was."""
    start("nodes")
    with open_database().writing() as session:
        job = session.scalar(select(Job).where(Job.id == job_id, Job.kind == JobKind.REFRESH))
        if job is None:
            raise CommandError(f"No refresh is the job {job_id!r}; GET /v1/jobs?kind=refresh lists them.")
        cancel_job(session, job)
        record(session, operator(), "job.cancel", job.id, kind=JobKind.REFRESH)
    click.echo(f"The job {job_id} is cancelled.", err=True)


def _order(database: Database, options: RefreshOptions) -> str:
    try:
        return _enqueue_once(database, options)
    except IntegrityError:
        # Another order met this one; it is committed by now, so this one is refused with its name.
        return _enqueue_once(database, options)


def _enqueue_once(database: Database, options: RefreshOptions) -> str:
    actor = operator()
    with database.writing() as session:
        job = enqueue_refresh(session, options, owner=actor.name).job
        ordered = {name: value for name, value in options.as_document().items() if value}
        record(session, actor, "nodes.refresh", job.id, **ordered)
    with database.reading() as session:
        if not any(Queues.NODES in node.queues.split(",") for node in live_workers(session)):
            click.echo("No worker is alive that does it; it waits for a `longshore worker --queues nodes`.", err=True)
    return job.id


def _follow(database: Database, job_id: str) -> None:
    """Show what changes until the job has ended.

    Raises:
        Failure: it did not end well.
    """
    shown: dict[str, str] = {}
    try:
        while True:
            with database.reading() as session:
                job = session.scalars(select(Job).where(Job.id == job_id)).one()
                entries = read_steps(session.scalars(select(Refresh.progress).where(Refresh.job_id == job_id)).one())
            lines = {entry.name: _line(entry) for entry in entries}
            for name, line in lines.items():
                if line != shown.get(name):
                    click.echo(line)
            shown = lines
            if JobState(job.state).ended:
                break
            time.sleep(POLL_INTERVAL_SECONDS)
    except KeyboardInterrupt:
        click.echo(f"\nThe job {job_id} goes on; `longshore nodes cancel {job_id}` ends it.", err=True)
        sys.exit(INTERRUPTED)
    if job.state != JobState.SUCCEEDED:
        raise CommandError(f"{job.error_message or 'It was not done.'} ({job.state})")
    click.echo("Done." if entries else "There was nothing to do.", err=True)


def _line(entry: RefreshStep) -> str:
    plan = "".join(
        f"\n  {meaning}: {', '.join(entry.plan[key])}" for key, meaning in PLANNED if entry.plan and entry.plan[key]
    )
    return f"{entry.name}: {entry.state} {entry.step}".rstrip() + plan


def _print_runners(database: Database, options: RefreshOptions) -> None:
    with database.reading() as session:
        runners = matching_runners(session, options)
    print_table(
        ("Algorithm", "Hash", "Image", "Registry"),
        [
            (algorithm.path, version.git_hash[:12], instance.image, instance.registry_id)
            for instance, algorithm, version in runners
        ],
        whole=("Hash",),
    )
