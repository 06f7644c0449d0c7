"""`longshore registries` and `longshore pushes`, as the operator calls them who is woken up."""

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, ImagePush, PauseCause, PushState, Registry
from shared.registries.circuit_breaker import record_failure
from shared.registry.credentials import Credentials
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, end_badly, end_push, make_claim, make_registry, one_row, push
from tests.unit.cli.conftest import Longshore

OWN = Credentials("pusher", "open sesame")


@pytest.fixture
def migrated(longshore: Longshore) -> Longshore:
    assert longshore("migrate").exit_code == 0
    return longshore


@pytest.fixture
def registry(migrated: Longshore) -> Registry:  # noqa: ARG001 - it comes first
    return make_registry("registry.example.com", name="scanned")


@pytest.fixture
def build(migrated: Longshore) -> Build:  # noqa: ARG001 - it comes first
    return build_commit(make_algorithm("acme"))


def test_a_registry_is_paused_and_resumed_by_any_of_its_names(migrated: Longshore, registry: Registry) -> None:
    for name in (registry.id, "scanned", "registry.example.com"):
        assert "is paused" in migrated("registries", "pause", name, "--reason", "moving").output
        assert one_row(Registry, id=registry.id).pause_reason == "Moving."
        assert "was paused already" in migrated("registries", "pause", name).output
        assert "takes pushes again" in migrated("registries", "resume", name).output
        assert "was open already" in migrated("registries", "resume", name).output
        assert one_row(Registry, id=registry.id).paused_at is None


def test_the_list_says_why_a_registry_is_paused_and_what_waits(
    migrated: Longshore, registry: Registry, build: Build
) -> None:
    push(build, registry)
    with database().writing() as session:
        record_failure(session, registry.id, PauseCause.UNREACHABLE, "It is away.", pause_after=1, probe_delays=(30,))
    listed = " ".join(migrated("registries", "list").output.split())
    assert "It is away." in listed
    assert "after 1 failures in a row" in listed


@pytest.mark.parametrize(
    "command", [("registries", "pause"), ("registries", "resume"), ("pushes", "retry", "--registry")]
)
def test_an_unknown_or_ambiguous_name_is_said(migrated: Longshore, command: tuple[str, ...]) -> None:
    result = migrated(*command, "nothing")
    assert (result.exit_code, "No registry has the id, name or URL 'nothing'" in result.output) == (1, True)
    make_registry("one.example.com", name="twin")
    make_registry("two.example.com", name="twin")
    result = migrated(*command, "twin")
    assert (result.exit_code, "2 registries are called 'twin'" in result.output) == (1, True)


def test_stalled_pushes_are_listed_and_told_by_the_exit_status(
    migrated: Longshore, registry: Registry, build: Build
) -> None:
    assert migrated("pushes", "stalled").exit_code == 0
    job = push(build, registry)
    change(one_row(ImagePush, id=job.push_id), state=PushState.STALLED, message="No byte has moved since noon.")
    result = migrated("pushes", "stalled")
    assert (result.exit_code, "No byte has moved since noon." in result.output) == (1, True)
    assert "acme/Hello" in migrated("pushes", "list", "--status", "stalled", "--registry", "scanned").output


def test_missing_images_are_listed_and_told_by_the_exit_status(
    migrated: Longshore, registry: Registry, build: Build
) -> None:
    job = push(build, registry)
    end_push(make_claim(job))
    assert migrated("pushes", "missing").exit_code == 0
    change(one_row(ImagePush, id=job.push_id), missing_at=now_ms())
    result = migrated("pushes", "missing")
    assert (result.exit_code, "last seen there" in result.output) == (1, True)


def test_what_failed_is_pushed_again(migrated: Longshore, registry: Registry, build: Build) -> None:
    end_badly(make_claim(push(build, registry)))
    result = migrated("pushes", "retry", "--registry", "scanned", "--status", "failed")
    assert "1 enqueued again, 0 skipped" in result.output
    assert "0 enqueued again, 0 skipped" in migrated("pushes", "retry").output


def test_credentials_that_are_gone_are_asked_for(migrated: Longshore, registry: Registry, build: Build) -> None:
    end_badly(make_claim(push(build, registry, OWN)))
    result = migrated("pushes", "retry")
    assert "0 enqueued again, 1 skipped" in result.output
    assert "Send credentials" in result.output
    assert migrated("pushes", "retry", "--username", "pusher").exit_code == 2
    given = ("--registry", "scanned", "--username", "pusher", "--password-stdin")
    from click.testing import CliRunner

    from cli.main import group

    result = CliRunner().invoke(group, ("pushes", "retry", *given), input="open sesame\n")
    assert "1 enqueued again" in result.output
    assert "sesame" not in result.output
