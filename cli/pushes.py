"""`longshore pushes`: list pushes, stalled ones and lost images among them, and repeat failed ones."""

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import ColumnElement, select

from cli.audit import operator
from cli.common import data_dir_option, echo, print_table, set_up
from cli.registries import find_registry, password_option, read_credentials
from cli.runtime import open_database
from shared.algorithms import find_algorithm
from shared.audit import record
from shared.commands.repush import RETRIABLE, Retry, retry_all
from shared.db.clock import rfc3339
from shared.db.models import Algorithm, ImagePush, PushState, Registry, Version
from shared.pushes.drift import missing_message


@click.group("pushes")
def command() -> None:
    """List pushes, also those that are stalled or whose image is missing, and repeat those that failed.

    These work on the database itself (LONGSHORE_DATA_DIR or LONGSHORE_DATABASE_URL), so they need no key.
    """


_registry = click.option("--registry", metavar="REGISTRY", help="Only pushes to this registry: its id, name or URL.")
_limit = click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Maximum number.")


@command.command("list")
@click.option("--status", type=click.Choice([state.value for state in PushState]), help="Only pushes in this state.")
@_registry
@_limit
@data_dir_option
def list_pushes(status: str | None, registry: str | None, limit: int) -> None:
    """List the latest push of every version and registry, newest first."""
    set_up("pushes")
    _print_pushes([ImagePush.state == status] if status else [], registry, limit)


@command.command("stalled")
@_registry
@_limit
@data_dir_option
def list_stalled(registry: str | None, limit: int) -> None:
    """List stalled pushes, since when, and what happens next. Exits with status 1 if there are any."""
    set_up("pushes")
    if _print_pushes([ImagePush.state == PushState.STALLED], registry, limit):
        sys.exit(1)


@command.command("missing")
@_registry
@_limit
@data_dir_option
def list_missing(registry: str | None, limit: int) -> None:
    """List the pushes whose last good image is missing in its registry. Exits with status 1 if there are any."""
    set_up("pushes")
    if _print_pushes([ImagePush.missing_at.is_not(None), Registry.deleted_at.is_(None)], registry, limit):
        sys.exit(1)


@command.command("retry")
@_registry
@click.option(
    "--status",
    type=click.Choice([state.value for state in RETRIABLE]),
    default=PushState.FAILED.value,
    show_default=True,
    help="Only pushes in this state.",
)
@click.option("--algorithm", metavar="OWNER/NAME", help="Only pushes of this algorithm.")
@click.option("--username", metavar="NAME", help="Push with these credentials instead of the stored ones.")
@password_option
@click.option("--dry-run", is_flag=True, help="Show what would be done without doing it.")
@data_dir_option
def retry(
    registry: str | None,
    status: str,
    algorithm: str | None,
    username: str | None,
    password_stdin: bool,
    dry_run: bool,
) -> None:
    """Push again what failed, the oldest first.

    Credentials that were given for one push are deleted after it: without new ones, the stored ones are used.
    """
    if username is not None and registry is None:
        raise click.UsageError("credentials are for one registry: name it with --registry")
    set_up("pushes")
    database = open_database()
    with database.reading() as session:
        registry_row = find_registry(session, registry) if registry else None
        algorithm_row = find_algorithm(session, algorithm) if algorithm else None
    request = Retry(
        status=PushState(status),
        registry_id=registry_row.id if registry_row else None,
        algorithm_id=algorithm_row.id if algorithm_row else None,
        credentials=read_credentials(username, password_stdin),
        dry_run=dry_run,
    )
    enqueued = skipped = 0
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("pushing again", total=None)
        for retried in retry_all(database, request):
            enqueued, skipped = enqueued + retried.enqueued, skipped + len(retried.skipped)
            progress.advance(bar, retried.enqueued)
            for push in retried.skipped:
                name = f"{push.algorithm}@{push.git_hash[:12]} to {push.registry_id}"
                echo(f"skipped: {name}: {push.reason}", err=True)
    if dry_run:
        click.echo(f"{enqueued} would be enqueued again, {skipped} skipped.")
        return
    with database.writing() as session:
        target = request.registry_id or ""
        record(session, operator(), "pushes.retry", target, number=enqueued, status=status, algorithm=algorithm)
    click.echo(f"{enqueued} enqueued again, {skipped} skipped; workers start them within seconds.")


def _print_pushes(conditions: Sequence[ColumnElement[bool]], registry: str | None, limit: int) -> int:
    query = (
        select(ImagePush, Version, Algorithm)
        .join(Version, Version.id == ImagePush.version_id)
        .join(Algorithm, Algorithm.id == Version.algorithm_id)
        .join(Registry, Registry.id == ImagePush.registry_id)
        .where(*conditions)
        .order_by(ImagePush.seq.desc())
        .limit(limit)
    )
    with open_database().reading() as session:
        if registry is not None:
            query = query.where(ImagePush.registry_id == find_registry(session, registry).id)
        rows = session.execute(query).tuples().all()
    print_table(
        ("Algorithm", "Hash", "Registry", "Status", "Attempt", "Changed", "Message"),
        [
            (
                algorithm.path,
                version.git_hash[:12],
                push.registry_url,
                push.state,
                push.attempt,
                rfc3339(push.updated_at),
                " ".join(filter(None, [push.message, missing_message(push)])),
            )
            for push, version, algorithm in rows
        ],
        unwrapped=("Hash",),
    )
    return len(rows)
