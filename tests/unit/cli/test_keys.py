"""`longshore keys` and the first admin key."""

import stat
from pathlib import Path

import pytest

from shared.db.engine import database
from shared.keys import Caller, authenticate_key
from tests.unit.cli.conftest import Longshore


@pytest.fixture
def migrated(longshore: Longshore) -> Longshore:
    assert longshore("migrate").exit_code == 0
    return longshore


def caller_with(secret: str) -> Caller | None:
    with database().reading() as session:
        return authenticate_key(session, secret)


def test_quiet_prints_the_secret_and_nothing_else(migrated: Longshore) -> None:
    result = migrated("keys", "create", "--owner", "ada", "--kind", "admin", "--quiet")
    caller = caller_with(result.output.rstrip("\n"))
    assert caller is not None
    assert (caller.owner, caller.admin) == ("ada", True)


def test_an_algorithm_key_is_no_admin_key(migrated: Longshore) -> None:
    result = migrated("keys", "create", "--owner", "ada", "--kind", "algorithm", "--label", "for CI")
    caller = caller_with(result.stdout.strip())
    assert caller is not None
    assert not caller.admin
    assert "for CI" in migrated("keys", "list", "--owner", "ada").stdout


def test_a_list_shows_no_secret(migrated: Longshore) -> None:
    secret = migrated("keys", "create", "--owner", "ada", "--quiet").stdout.strip()
    migrated("keys", "create", "--owner", "bob", "--quiet")
    shown = migrated("keys", "list", "--owner", "ada").stdout
    assert "ada" in shown
    assert "bob" not in shown
    assert secret not in shown


def test_a_revoked_key_is_refused_from_then_on(migrated: Longshore) -> None:
    secret = migrated("keys", "create", "--owner", "ada", "--quiet").stdout.strip()
    caller = caller_with(secret)
    assert caller is not None
    assert migrated("keys", "revoke", caller.key_id).exit_code == 0
    assert caller_with(secret) is None
    again = migrated("keys", "revoke", caller.key_id)
    assert again.exit_code == 1
    assert "longshore: No key that is in force has the id" in again.stderr


def test_an_existing_key_is_read_from_standard_input(migrated: Longshore) -> None:
    secret = "sim" + "Q7h2Zk9pW4xT1mB8vN3cR6yLd"
    result = migrated("keys", "carry-over", "--owner", "ada", "--kind", "admin", input=f"{secret}\n")
    caller = caller_with(secret)
    assert caller is not None, result.output
    assert (caller.owner, caller.admin) == ("ada", True)
    assert secret not in result.output
    again = migrated("keys", "carry-over", "--owner", "bob", input=secret)
    assert again.exit_code == 1
    assert "known here already" in again.stderr
    assert "ada" not in again.stderr


@pytest.mark.parametrize("text", ["", "sim\n", "sim" + "a" * 25, "sim" + "Q7h2Zk9pW4" * 200])
def test_what_is_no_key_is_not_carried_over(migrated: Longshore, text: str) -> None:
    result = migrated("keys", "carry-over", "--owner", "ada", input=text)
    assert result.exit_code == 1
    assert "longshore: " in result.stderr
    assert migrated("keys", "list", "--owner", "ada").stdout.count("ada") == 0


@pytest.mark.parametrize("owner", ["", "1st", "a/b", "a" * 31, "a b"])
def test_an_owner_has_a_proper_name(migrated: Longshore, owner: str) -> None:
    assert migrated("keys", "create", "--owner", owner).exit_code == 2


def test_two_owners_cannot_share_an_image_name(migrated: Longshore) -> None:
    migrated("keys", "create", "--owner", "ada")
    result = migrated("keys", "create", "--owner", "Ada")
    assert result.exit_code == 1
    assert "the same name in image references" in result.stderr


def test_the_first_admin_key_is_made_once_and_kept_private(migrated: Longshore, tmp_path: Path) -> None:
    path = tmp_path / "admin-key"
    assert migrated("migrate", "--admin-key", str(path)).exit_code == 0
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    caller = caller_with(secret)
    assert caller is not None
    assert caller.admin

    path.unlink()
    assert migrated("migrate", "--admin-key", str(path)).exit_code == 0
    assert not path.exists()  # whoever put the key elsewhere does not find it here again


def test_an_admin_key_that_cannot_be_written_is_not_made(migrated: Longshore, tmp_path: Path) -> None:
    result = migrated("migrate", "--admin-key", str(tmp_path / "nowhere" / "admin-key"))
    assert result.exit_code == 2
    path = tmp_path / "admin-key"
    migrated("migrate", "--admin-key", str(path))
    assert path.exists()


def test_a_database_that_is_not_there_is_no_traceback(longshore: Longshore) -> None:
    result = longshore("keys", "list")
    assert result.exit_code == 2
    assert "The database is empty" in result.stderr
