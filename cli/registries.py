"""`longshore registries`: how registries take pushes, for the operator who is called when they do not."""

import click
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from cli.audit import operator
from cli.common import data_dir_option, print_table, start
from cli.errors import CommandError
from cli.runtime import open_database
from shared.audit import record
from shared.db.models import Job, JobState, Registry
from shared.errors import sentence
from shared.registries import circuit_breaker
from shared.registries.circuit_breaker import DEFAULT_PAUSE_REASON, waiting_reason


@click.group("registries")
def command() -> None:
    """See how registries take pushes; pause and resume them.

    These act on the database itself (LONGSHORE_DATA_DIR or LONGSHORE_DATABASE_URL), so they need no key.
    """


@command.command("list")
@data_dir_option
def list_registries() -> None:
    """List the registries: what they are, whether they are paused and why, and how many pushes wait and run."""
    start("registries")
    with open_database().reading() as session:
        registries = session.scalars(
            select(Registry).where(Registry.deleted_at.is_(None)).order_by(Registry.seq.desc())
        ).all()
        counted = session.execute(
            select(Job.registry_id, Job.state, func.count(Job.seq))
            .where(Job.registry_id.is_not(None), Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
            .group_by(Job.registry_id, Job.state)
        )
        counts = {(registry_id, state): number for registry_id, state, number in counted}
    print_table(
        ("ID", "Name", "URL", "State", "Waiting", "Running", "At once"),
        [
            (
                registry.id,
                registry.name,
                registry.registry_url,
                waiting_reason(registry, own_credentials=False) or _state(registry),
                counts.get((registry.id, JobState.QUEUED), 0),
                counts.get((registry.id, JobState.RUNNING), 0),
                registry.max_pushes,
            )
            for registry in registries
        ],
        whole=("ID",),
    )


@command.command("pause")
@click.argument("registry", metavar="REGISTRY")
@click.option("--reason", default=DEFAULT_PAUSE_REASON, help="What the statuses of waiting pushes say.")
@data_dir_option
def pause(registry: str, reason: str) -> None:
    """Begin no more pushes to REGISTRY (its id, name or URL); those that run go on."""
    start("registries")
    with open_database().writing() as session:
        found = named_registry(session, registry, locked=True)
        changed = circuit_breaker.pause(session, found, sentence(reason.strip() or DEFAULT_PAUSE_REASON))
        record(session, operator(), "registry.pause", found.id, reason=reason)
    click.echo(f"{found.registry_url} {'is paused' if changed else 'was paused already'}.", err=True)


@command.command("resume")
@click.argument("registry", metavar="REGISTRY")
@data_dir_option
def resume(registry: str) -> None:
    """Push to REGISTRY (its id, name or URL) again, whoever paused it. Waiting pushes go on within seconds."""
    start("registries")
    with open_database().writing() as session:
        found = named_registry(session, registry, locked=True)
        changed = circuit_breaker.resume(session, found)
        record(session, operator(), "registry.resume", found.id)
    click.echo(f"{found.registry_url} {'takes pushes again' if changed else 'was open already'}.", err=True)


def named_registry(session: Session, name: str, *, locked: bool = False) -> Registry:
    """The one registry with this id, name or URL.

    Raises:
        Failure: there is none, or there are several.
    """
    query = select(Registry).where(
        Registry.deleted_at.is_(None),
        or_(Registry.id == name, Registry.name == name, Registry.registry_url == name),
    )
    found = session.scalars(query.with_for_update() if locked else query).all()
    if not found:
        raise CommandError(f"No registry has the id, name or URL {name!r}; `longshore registries list` lists them.")
    if len(found) > 1:
        raise CommandError(f"{len(found)} registries are called {name!r}; give the id (`longshore registries list`).")
    return found[0]


def _state(registry: Registry) -> str:
    return "open" if registry.failures == 0 else f"open, {registry.failures} failures in a row"
