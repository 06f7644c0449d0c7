"""`longshore audit`: show who did what, when, from where."""

import getpass
import json

import click

from cli.common import data_dir_option, print_table, set_up
from cli.runtime import open_database
from shared.audit import Actor, entries
from shared.db.clock import rfc3339
from shared.db.models import AuditEvent


@click.command("audit")
@click.option(
    "--actor",
    metavar="OWNER",
    help="Only actions of this owner's keys; `cli`: those of `longshore` commands.",
)
@click.option("--action", metavar="ACTION", help="Only this (registry.create), or all that begin with it (registry.).")
@click.option("--target", metavar="ID", help="Only what was done to the object with this id.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Maximum number, the newest."
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each entry, for programs.")
@data_dir_option
def command(actor: str | None, action: str | None, target: str | None, limit: int, as_json: bool) -> None:
    """Show the audit trail, the newest entry last.

    It works on the database itself (LONGSHORE_DATA_DIR or LONGSHORE_DATABASE_URL), so it needs no key.
    """
    set_up("audit")
    query = entries(actor=actor, action=action, target=target).order_by(AuditEvent.seq.desc()).limit(limit)
    with open_database().reading() as session:
        events = list(reversed(session.scalars(query).all()))
    if as_json:
        for event in events:
            columns = {column.key: getattr(event, column.key) for column in AuditEvent.__table__.columns}
            click.echo(json.dumps({**columns, "created_at": rfc3339(event.created_at)}))
        return
    print_table(
        ("Time", "Actor", "From", "Action", "Target", "Owner", "Detail"),
        [
            (
                rfc3339(event.created_at),
                event.actor,
                event.address,
                event.action,
                event.target_id,
                event.owner,
                json.dumps(event.detail, ensure_ascii=False) if event.detail else "",
            )
            for event in events
        ],
        unwrapped=("Time",),
    )


def operator() -> Actor:
    """Return the user of a command that works on the database itself, for the audit trail."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        user = "unknown"
    return Actor("cli", address=f"user {user}"[:64])
