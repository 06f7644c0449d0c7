"""`longshore registries`: show registries, pause and resume them, set defaults and push accounts, adopt versions."""

import sys

import click
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from cli.audit import operator
from cli.common import data_dir_option, echo, print_table, set_up
from cli.errors import CommandError
from cli.runtime import open_database
from shared.algorithms import find_algorithm
from shared.audit import record
from shared.commands.adopt import Adoption, adopt_all
from shared.db.models import DefaultLevel, Job, JobState, Owner, Registry
from shared.encryption import keyring
from shared.errors import sentence
from shared.registries import circuit_breaker
from shared.registries.circuit_breaker import DEFAULT_PAUSE_REASON, waiting_reason
from shared.registries.credentials import CredentialsUpdate
from shared.registries.defaults import remove_default, set_default
from shared.registries.rows import change_registry, lock_with_default
from shared.registry.credentials import Credentials, InvalidCredentialsError

username_option = click.option("--username", metavar="NAME", help="An account that may push.")
password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input instead of asking."
)


@click.group("registries")
def command() -> None:
    """Show the state of registries; pause and resume them; set defaults and push accounts; adopt versions.

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
        ("ID", "Name", "URL", "Default", "State", "Waiting", "Running", "Limit"),
        [
            (
                registry.id,
                registry.name,
                registry.registry_url,
                "default" if registry.is_default else None,
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


@command.command("default")
@click.argument("registry", metavar="REGISTRY", required=False)
@click.option("--owner", metavar="OWNER", help="For pushes of this owner's algorithms.")
@click.option("--algorithm", metavar="OWNER/NAME", help="For pushes of this algorithm.")
@click.option("--remove", is_flag=True, help="Remove the default instead; the next one applies.")
@username_option
@password_option
@data_dir_option
def default(
    registry: str | None,
    owner: str | None,
    algorithm: str | None,
    remove: bool,
    username: str | None,
    password_stdin: bool,
) -> None:
    """Push to REGISTRY (its id, name or URL) what names no registry: of everybody, an owner or an algorithm.

    With --username, these pushes use that account. Without it, the recorded ones, or those set before for the same
    registry.
    """
    if (registry is None) != remove or (owner is not None and algorithm is not None):
        raise click.UsageError("name a REGISTRY, or --remove; and at most one of --owner and --algorithm")
    set_up("registries")
    given = CredentialsUpdate(read_credentials(username, password_stdin))
    with open_database().writing() as session:
        row = None if registry is None else find_registry(session, registry)
        subject = "everybody"
        if owner is None and algorithm is None:
            _set_for_everybody(session, row, given)
        else:
            level, subject_id, subject = _subject(session, owner, algorithm)
            if row is None:
                remove_default(session, level, subject_id)
            else:
                set_default(session, keyring(), level, subject_id, row.id, given)
            target = {"removed": True} if row is None else {"registry": row.id}
            action = f"{level}.default_registry"
            record(session, operator(), action, subject_id, owner=subject.partition("/")[0], **target)
    where = "nowhere, unless another default applies" if row is None else f"to {row.registry_url}"
    echo(f"Pushes of {subject} that name no registry go {where}.", err=True)


def _set_for_everybody(session: Session, registry: Registry | None, push_account: CredentialsUpdate) -> None:
    present = session.scalar(select(Registry).where(Registry.is_default, Registry.deleted_at.is_(None)))
    row = registry or present
    if row is None:
        return
    lock_with_default(session, row.id)
    change_registry(session, keyring(), row, {"is_default": registry is not None}, CredentialsUpdate(), push_account)
    record(session, operator(), "registry.update", row.id, default=row.is_default)


def _subject(session: Session, owner: str | None, algorithm: str | None) -> tuple[DefaultLevel, str, str]:
    """Return the level of a default, its subject, and the name of the subject.

    Raises:
        CommandError: there is no such owner.
    """
    if algorithm is not None:
        row = find_algorithm(session, algorithm)
        return DefaultLevel.ALGORITHM, row.id, row.path
    if session.scalar(select(Owner.seq).where(Owner.username == owner)) is None:
        raise CommandError(f"There is no owner {owner!r}; `longshore keys create --owner {owner}` creates it.")
    return DefaultLevel.OWNER, str(owner), str(owner)


@command.command("push-account")
@click.argument("registry", metavar="REGISTRY")
@click.option("--remove", is_flag=True, help="Remove it: the recorded account pushes, too.")
@username_option
@password_option
@data_dir_option
def push_account(registry: str, remove: bool, username: str | None, password_stdin: bool) -> None:
    """Set the account that pushes to REGISTRY (its id, name or URL), where the recorded one may only pull."""
    if (username is None) != remove:
        raise click.UsageError("give a --username, or --remove")
    set_up("registries")
    change = CredentialsUpdate(read_credentials(username, password_stdin), removed=remove)
    with open_database().writing() as session:
        row = find_registry(session, registry, locked=True)
        change_registry(session, keyring(), row, {}, CredentialsUpdate(), change)
        record(session, operator(), "registry.update", row.id, has_push_credentials=row.push_credentials is not None)
    echo(f"{row.registry_url} {'has no push account now' if remove else 'has a push account now'}.", err=True)


@command.command("adopt")
@click.argument("registry", metavar="REGISTRY")
@click.option("--owner", metavar="OWNER", help="Only versions of this owner's algorithms.")
@click.option("--algorithm", metavar="OWNER/NAME", help="Only versions of this algorithm.")
@click.option("--dry-run", is_flag=True, help="Show what would be done without doing it.")
@data_dir_option
def adopt(registry: str, owner: str | None, algorithm: str | None, dry_run: bool) -> None:
    """Push published versions to REGISTRY (its id, name or URL) that it has not got.

    Executions pull from it as soon as it has them.
    """
    set_up("registries")
    database = open_database()
    with database.reading() as session:
        row = find_registry(session, registry)
        algorithm_id = find_algorithm(session, algorithm).id if algorithm else None
        if owner is not None:
            _subject(session, owner, None)
    enqueued = skipped = 0
    for adopted in adopt_all(database, Adoption(row.id, owner, algorithm_id, dry_run=dry_run)):
        enqueued, skipped = enqueued + adopted.enqueued, skipped + len(adopted.skipped)
        for push in adopted.skipped:
            echo(f"skipped: {push.algorithm}@{push.git_hash[:12]}: {push.reason}", err=True)
    if not dry_run:
        with database.writing() as session:
            detail = {"number": enqueued, "algorithm": algorithm}
            record(session, operator(), "registry.adopt", row.id, owner=owner, **detail)
    done = "would be enqueued" if dry_run else "enqueued; workers start them within seconds"
    click.echo(f"{skipped} skipped, {enqueued} {done}.")


def read_credentials(username: str | None, password_stdin: bool) -> Credentials | None:
    """Return the credentials of a command line; the password is read from standard input or asked for.

    Raises:
        CommandError: they are invalid.
    """
    if username is None:
        if password_stdin:
            raise click.UsageError("--password-stdin goes with --username")
        return None
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else click.prompt("Password", hide_input=True)
    try:
        return Credentials(username, password)
    except InvalidCredentialsError as error:
        raise CommandError(str(error)) from None


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
