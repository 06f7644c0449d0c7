"""`longshore nodes`: make worker nodes, or running instances, pull their images again."""

import sys
import time
from collections.abc import Sequence

import click
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from cli.audit import operator
from cli.common import data_dir_option, echo, print_table, set_up
from cli.errors import CommandError
from cli.registries import find_registry
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
PLAN_LABELS = (
    ("evicted", "would be evicted"),
    ("stay", "would stay"),
    ("waits_for", "waits for"),
    ("refused_for", "refused, because nothing recreates"),
)
INTERRUPTED = 130
"""The exit status after Ctrl-C."""


@click.group("nodes")
def command() -> None:
    """Make worker nodes, or running instances, pull their images again.

    These work on the database itself (LONGSHORE_DATA_DIR or LONGSHORE_DATABASE_URL), so they need no key.
    """


@command.command("refresh")
@click.option(
    "--what",
    type=click.Choice([kind.value for kind in RefreshKind]),
    default=RefreshKind.NODES.value,
    show_default=True,
    help="nodes: drain, restart and uncordon them one by one. runners: restart the running instances.",
)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Only this node; can be given several times.")
@click.option(
    "--restart",
    type=click.Choice([kind.value for kind in RestartKind]),
    help="How a drained node is restarted. Default: by the settings of the worker.",
)
@click.option("--registry", metavar="REGISTRY", help="Only runners with an image from this registry: id, name or URL.")
@click.option(
    "--algorithm", metavar="OWNER/NAME", help="Only runners of a version of this algorithm; needs --git-hash."
)
@click.option("--git-hash", metavar="HASH", help="Commit of that version: 7 characters of its hash or more.")
@click.option("--dry-run", is_flag=True, help="Show what would be done without doing it.")
@click.option("--no-wait", is_flag=True, help="Enqueue the job and exit, without showing its progress.")
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
    """Make every worker node, or the running instances, pull their images again. Exits with status 1 on failure.

    Ctrl-C ends the display, not the job.
    """
    set_up("nodes")
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
            registry_id=None if registry is None else find_registry(session, registry).id,
            dry_run=dry_run,
        )
    if dry_run and options.what == RefreshKind.RUNNERS:
        _print_runners(database, options)
        return
    job_id = _enqueue(database, options)
    click.echo(f"Job {job_id} is enqueued.", err=True)
    if no_wait:
        click.echo(job_id)
        return
    _follow(database, job_id)


@command.command("cancel")
@click.argument("job_id", metavar="JOB")
@data_dir_option
def cancel(job_id: str) -> None:
    """Cancel the refresh JOB. The node that it works on is uncordoned."""
    set_up("nodes")
    with open_database().writing() as session:
        job = session.scalar(select(Job).where(Job.id == job_id, Job.kind == JobKind.REFRESH))
        if job is None:
            raise CommandError(f"No refresh has the job id {job_id!r}; GET /v1/jobs?kind=refresh lists them.")
        cancel_job(session, job)
        record(session, operator(), "job.cancel", job.id, kind=JobKind.REFRESH)
    click.echo(f"The job {job_id} is cancelled.", err=True)


def _enqueue(database: Database, options: RefreshOptions) -> str:
    try:
        return _enqueue_once(database, options)
    except IntegrityError:
        # Another refresh was enqueued at the same time. It is committed now, so this attempt fails with its id.
        return _enqueue_once(database, options)


def _enqueue_once(database: Database, options: RefreshOptions) -> str:
    actor = operator()
    with database.writing() as session:
        job = enqueue_refresh(session, options, owner=actor.name).job
        detail = {name: value for name, value in options.as_document().items() if value}
        record(session, actor, "nodes.refresh", job.id, **detail)
    with database.reading() as session:
        if not any(Queues.NODES in worker.queues.split(",") for worker in live_workers(session)):
            click.echo(
                "No worker of the queue nodes is running; the job waits for a `longshore worker --queues nodes`.",
                err=True,
            )
    return job.id


def _follow(database: Database, job_id: str) -> None:
    """Print each change of the job's steps until it has ended.

    Raises:
        CommandError: it did not succeed.
    """
    shown: dict[str, str] = {}
    try:
        while True:
            with database.reading() as session:
                job = session.scalars(select(Job).where(Job.id == job_id)).one()
                steps = read_steps(session.scalars(select(Refresh.progress).where(Refresh.job_id == job_id)).one())
            lines = {step.name: _line(step) for step in steps}
            for name, line in lines.items():
                if line != shown.get(name):
                    echo(line)
            shown = lines
            if JobState(job.state).ended:
                break
            time.sleep(POLL_INTERVAL_SECONDS)
    except KeyboardInterrupt:
        click.echo(f"\nThe job {job_id} continues; `longshore nodes cancel {job_id}` cancels it.", err=True)
        sys.exit(INTERRUPTED)
    if job.state != JobState.SUCCEEDED:
        raise CommandError(f"{job.error_message or 'It was not done.'} ({job.state})")
    click.echo("Done." if steps else "There was nothing to do.", err=True)


def _line(step: RefreshStep) -> str:
    plan = "".join(
        f"\n  {meaning}: {', '.join(step.plan[key])}" for key, meaning in PLAN_LABELS if step.plan and step.plan[key]
    )
    return f"{step.name}: {step.state} {step.step}".rstrip() + plan


def _print_runners(database: Database, options: RefreshOptions) -> None:
    with database.reading() as session:
        runners = matching_runners(session, options)
    print_table(
        ("Algorithm", "Hash", "Image", "Registry"),
        [
            (algorithm.path, version.git_hash[:12], instance.image, instance.registry_id)
            for instance, algorithm, version in runners
        ],
        unwrapped=("Hash",),
    )
