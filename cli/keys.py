"""`longshore keys`: make, carry over, list and revoke API keys in the database itself."""

import sys

import click
from sqlalchemy import select

from cli.audit import operator
from cli.common import data_dir_option, echo, print_table, set_up
from cli.errors import CommandError
from cli.runtime import open_database
from shared.audit import record
from shared.db.clock import rfc3339
from shared.db.models import ApiKey, KeyKind
from shared.keys import OWNER_NAME, InvalidKeyError, carry_over_key, create_key, create_owner, revoke_key

MAX_INPUT_CHARACTERS = 1024
KINDS = {"admin": KeyKind.ADMIN, "algorithm": KeyKind.ALGORITHM}


@click.group("keys")
def command() -> None:
    """Make, carry over, list and revoke API keys.

    These work on the database itself (LONGSHORE_DATA_DIR or LONGSHORE_DATABASE_URL), so they need no key.
    """


owner_option = click.option("--owner", required=True, metavar="NAME", help="Owner of the key; created if new.")
kind_option = click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="algorithm",
    show_default=True,
    help="admin: may do everything. algorithm: manages and calls the algorithms of its owner.",
)


@command.command("create")
@owner_option
@kind_option
@click.option("--label", default="made by `longshore keys`", show_default=True, help="Purpose of the key.")
@click.option("--quiet", is_flag=True, help="Print the secret and nothing else.")
@data_dir_option
def create(owner: str, kind: str, label: str, quiet: bool) -> None:
    """Make a key and print its secret, which cannot be shown again."""
    set_up("keys")
    _check_options(owner, label)
    with open_database().writing() as session:
        username = create_owner(session, owner).username
        key, secret = create_key(session, username, label=label, kind=KINDS[kind])
        record(session, operator(), "key.create", key.id, owner=username, kind=key.kind, label=label)
    if not quiet:
        echo(f"Key {key.id} ({key.kind.value}) of {owner}. Keep the secret; it is not shown again:", err=True)
    click.echo(secret)


@command.command("carry-over")
@owner_option
@kind_option
@click.option("--label", default="carried over", show_default=True, help="Purpose of the key.")
@data_dir_option
def carry_over(owner: str, kind: str, label: str) -> None:
    """Record an existing key of the platform, read from standard input, so that what uses it keeps working."""
    set_up("keys")
    _check_options(owner, label)
    secret = _read_secret()
    try:
        with open_database().writing() as session:
            username = create_owner(session, owner).username
            key = carry_over_key(session, username, secret, label=label, kind=KINDS[kind])
            record(session, operator(), "key.carry_over", key.id, owner=username, kind=key.kind, label=label)
    except InvalidKeyError as error:
        raise CommandError(error.message) from None
    echo(f"Key {key.id} ({key.kind.value}, {key.mask}) of {owner} is valid here from now on.", err=True)


@command.command("list")
@click.option("--owner", metavar="NAME", help="Only the keys of this owner.")
@data_dir_option
def list_keys(owner: str | None) -> None:
    """List the keys: owner, kind, and whether revoked. Secrets are not stored, so they cannot be shown."""
    set_up("keys")
    query = select(ApiKey).order_by(ApiKey.seq)
    with open_database().reading() as session:
        keys = list(session.scalars(query if owner is None else query.where(ApiKey.owner == owner)))
    print_table(
        ("ID", "Owner", "Kind", "Label", "Key", "Made", "Revoked"),
        [
            (key.id, key.owner, key.kind, key.label, key.mask, rfc3339(key.created_at), rfc3339(key.revoked_at))
            for key in keys
        ],
        unwrapped=("ID", "Owner"),
    )


@command.command("revoke")
@click.argument("key_id", metavar="ID")
@data_dir_option
def revoke(key_id: str) -> None:
    """Revoke a key immediately. This cannot be undone."""
    set_up("keys")
    with open_database().writing() as session:
        owner = session.scalar(select(ApiKey.owner).where(ApiKey.id == key_id))
        if owner is None or not revoke_key(session, key_id, owner):
            raise CommandError(f"No key that is in force has the id {key_id!r}; `longshore keys list` lists them.")
        record(session, operator(), "key.revoke", key_id, owner=owner)
    echo(f"Key {key_id} of {owner} is revoked.", err=True)


def _read_secret() -> str:
    """Return the first line of standard input, which a terminal does not show while it is typed."""
    if sys.stdin.isatty():
        return str(click.prompt("Key", hide_input=True)).strip()
    return sys.stdin.readline(MAX_INPUT_CHARACTERS).strip()


def _check_options(owner: str, label: str) -> None:
    if not OWNER_NAME.fullmatch(owner):
        raise click.BadParameter("a letter, then letters, digits or underscores, at most 30", param_hint="--owner")
    max_length = ApiKey.label.type.length
    if not label.strip() or len(label) > max_length or not label.isprintable():
        raise click.BadParameter(f"1 to {max_length} printable characters", param_hint="--label")
