"""`longshore registries default`, `push-account` and `adopt`."""

import pytest
from click.testing import CliRunner, Result

from cli.main import group
from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent, DefaultRegistry, ImagePush, Registry
from shared.encryption import keyring
from shared.registries.credentials import decrypt_default_credentials, decrypt_push_account
from shared.registries.defaults import applicable_default
from shared.registry.credentials import Credentials
from tests.git_service import make_algorithm
from tests.rows import build_commit, end_badly, make_claim, make_registry, one_row, publish, push
from tests.unit.cli.conftest import Longshore

PUSHER = Credentials("pusher", "open sesame")
ACCOUNT = ("--username", "pusher", "--password-stdin")


@pytest.fixture
def algorithm(longshore: Longshore) -> Algorithm:
    assert longshore("migrate").exit_code == 0
    return make_algorithm("acme")


@pytest.fixture
def registry(algorithm: Algorithm) -> Registry:  # noqa: ARG001 - it comes first
    return make_registry("registry.example.com", name="scanned")


def with_password(*arguments: str) -> Result:
    return CliRunner().invoke(group, ("registries", *arguments, *ACCOUNT), input="open sesame\n")


def source_of_default(algorithm: Algorithm) -> str | None:
    with database().reading() as session:
        default = applicable_default(session, algorithm.owner, algorithm.id)
    return None if default is None else default.source


def test_a_default_is_set_and_removed_at_each_level(
    longshore: Longshore, algorithm: Algorithm, registry: Registry
) -> None:
    for level, options in (
        ("installation", ()),
        ("owner", ("--owner", "acme")),
        ("algorithm", ("--algorithm", "acme/Hello")),
    ):
        result = longshore("registries", "default", registry.name or "", *options)
        assert (result.exit_code, "go to registry.example.com" in result.output) == (0, True)
        assert source_of_default(algorithm) == level
    assert "default" in longshore("registries", "list").output
    for options, left in (
        (("--algorithm", "acme/Hello"), "owner"),
        (("--owner", "acme"), "installation"),
        ((), None),
        ((), None),
    ):
        assert longshore("registries", "default", "--remove", *options).exit_code == 0
        assert source_of_default(algorithm) == left
    assert one_row(AuditEvent, action="owner.default_registry", detail={"removed": True}).owner == "acme"


def test_a_default_takes_an_account_for_its_pushes(registry: Registry) -> None:
    assert "sesame" not in with_password("default", registry.id, "--owner", "acme").output
    assert decrypt_default_credentials(keyring(), one_row(DefaultRegistry)) == PUSHER
    with_password("default", registry.id)
    assert decrypt_push_account(keyring(), one_row(Registry, id=registry.id)) == PUSHER


def test_a_push_account_is_set_and_removed(longshore: Longshore, registry: Registry) -> None:
    assert with_password("push-account", "scanned").exit_code == 0
    assert decrypt_push_account(keyring(), one_row(Registry, id=registry.id)) == PUSHER
    assert longshore("registries", "push-account", "scanned", "--remove").exit_code == 0
    assert one_row(Registry, id=registry.id).push_credentials is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("default",),
        ("default", "scanned", "--remove"),
        ("default", "scanned", "--owner", "acme", "--algorithm", "acme/Hello"),
        ("push-account", "scanned"),
        ("push-account", "scanned", "--remove", "--username", "pusher"),
        ("default", "scanned", "--password-stdin"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    longshore: Longshore, registry: Registry, arguments: tuple[str, ...]
) -> None:
    assert longshore("registries", *arguments).exit_code == 2
    assert one_row(Registry, id=registry.id).push_credentials is None


def test_an_unknown_owner_or_algorithm_is_said(longshore: Longshore, registry: Registry) -> None:
    for command in ("default", "adopt"):
        result = longshore("registries", command, registry.id, "--owner", "nobody")
        assert (result.exit_code, "There is no owner 'nobody'" in result.output) == (1, True)
        result = longshore("registries", command, registry.id, "--algorithm", "acme/None")
        assert (result.exit_code, "No such algorithm" in result.output) == (1, True)


def test_published_versions_are_adopted_after_a_dry_run(
    longshore: Longshore, algorithm: Algorithm, registry: Registry
) -> None:
    build = build_commit(algorithm)
    publish(algorithm)
    assert "0 skipped, 1 would be enqueued" in longshore("registries", "adopt", "scanned", "--dry-run").output
    assert "0 skipped, 1 enqueued" in longshore("registries", "adopt", "scanned", "--owner", "acme").output
    assert one_row(ImagePush).registry_id == registry.id
    again = longshore("registries", "adopt", "scanned").output
    assert "acme/Hello@" in again
    assert "1 skipped, 0 enqueued" in again
    other = make_registry("other.example.com")
    end_badly(make_claim(push(build, other)))
    assert "1 would be enqueued again, 0 skipped" in longshore("pushes", "retry", "--dry-run").output
    assert one_row(ImagePush, registry_id=other.id).state == "failed"
