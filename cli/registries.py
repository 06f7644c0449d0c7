"""`longshore registries`: show the state of registries, pause and resume them."""

import click
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from cli.audit import operator
from cli.common import data_dir_option, echo, print_table, set_up
from cli.errors import CommandError
from cli.runtime import open_database
from shared.audit import record
from shared.db.models import Job, JobState, Registry
from shared.errors import sentence
from shared.registries import circuit_breaker
from shared.registries.circuit_breaker import DEFAULT_PAUSE_REASON, waiting_reason


@click.group("registries")
def command() -> None:
    """Show the state of registries; pause and resume them.

    These work on the database itself (LONGSHORE_DATA_DIR or LONGSHORE_DATABASE_URL), so they need no key.
    """


@command.command("list")
@data_dir_option
def list_registries() -> None:
    """List the registries: whether and why they are paused, and how many pushes wait and run."""
    set_up("registries")
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
        ("ID", "Name", "URL", "State", "Waiting", "Running", "Limit"),
        [
            (
                registry.id,
                registry.name,
                registry.registry_url,
                waiting_reason(registry, own_credentials=False)
                or (f"open, {registry.failures} failures in a row" if registry.failures else "open"),
                counts.get((registry.id, JobState.QUEUED), 0),
                counts.get((registry.id, JobState.RUNNING), 0),
                registry.max_pushes,
            )
            for registry in registries
        ],
        unwrapped=("ID",),
    )


@command.command("pause")
@click.argument("registry", metavar="REGISTRY")
@click.option("--reason", default=DEFAULT_PAUSE_REASON, help="Shown in the status of waiting pushes.")
@data_dir_option
def pause(registry: str, reason: str) -> None:
    """Start no more pushes to REGISTRY (its id, name or URL). Pushes in progress continue."""
    set_up("registries")
    with open_database().writing() as session:
        row = find_registry(session, registry, locked=True)
        changed = circuit_breaker.pause(session, row, sentence(reason.strip() or DEFAULT_PAUSE_REASON))
        record(session, operator(), "registry.pause", row.id, reason=reason)
    echo(f"{row.registry_url} {'is paused' if changed else 'was paused already'}.", err=True)


@command.command("resume")
@click.argument("registry", metavar="REGISTRY")
@data_dir_option
def resume(registry: str) -> None:
    """Push to REGISTRY (its id, name or URL) again, also if the circuit breaker paused it.

    Waiting pushes continue within seconds.
    """
    set_up("registries")
    with open_database().writing() as session:
        row = find_registry(session, registry, locked=True)
        changed = circuit_breaker.resume(session, row)
        record(session, operator(), "registry.resume", row.id)
    echo(f"{row.registry_url} {'takes pushes again' if changed else 'was open already'}.", err=True)


def find_registry(session: Session, name: str, *, locked: bool = False) -> Registry:
    """Return the registry with this id, name or URL.

    Raises:
        CommandError: there is none, or more than one.
    """
    query = select(Registry).where(
        Registry.deleted_at.is_(None),
        or_(Registry.id == name, Registry.name == name, Registry.registry_url == name),
    )
    registries = session.scalars(query.with_for_update() if locked else query).all()
    if not registries:
        raise CommandError(f"No registry has the id, name or URL {name!r}; `longshore registries list` lists them.")
    if len(registries) > 1:
        raise CommandError(f"{len(registries)} registries are called {name!r}; name one by its id.")
    return registries[0]
