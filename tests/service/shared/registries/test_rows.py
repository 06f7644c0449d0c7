"""Changes of a registry: its credentials, and its queued pushes."""

from typing import Any

import pytest
from sqlalchemy import select

from shared.db.engine import database
from shared.db.models import ImagePush, JobState, PushState, Registry
from shared.encryption import keyring
from shared.errors import ErrorClass, InvalidInputError
from shared.registries.access import image_lock_name
from shared.registries.credentials import (
    CredentialsUpdate,
    decrypt_registry_credentials,
)
from shared.registries.rows import change_registry
from shared.registry.credentials import Credentials
from tests.git_service import make_algorithm
from tests.rows import HASH, build_commit, change, end_badly, fresh, make_claim, make_registry, one_row, push
from workers.jobs.executor import run_job
from workers.pushes.push import PushWork

pytestmark = pytest.mark.usefixtures("installation")

OWN = Credentials("owner", "open sesame")
GIVEN = Credentials("pusher", "open barley")
NOWHERE = "localhost:1"


def move(registry: Registry, credentials: Credentials | None = None, *, remove: bool = False, **state: object) -> None:
    with database().writing() as session:
        row = session.scalars(select(Registry).where(Registry.id == registry.id)).one()
        change_registry(session, keyring(), row, state, CredentialsUpdate(credentials, remove))


def own(registry: Registry) -> Credentials | None:
    return decrypt_registry_credentials(keyring(), fresh(registry))


@pytest.mark.parametrize(
    "state",
    [
        {"registry_url": "thief.example.com"},
        {"registry_url": "registry.example.com:5000"},
        {"registry_url": "http://registry.example.com"},
        {"verify_tls": False},
        {"registry_url": "http://registry.example.com:443", "plain_http": True},
    ],
)
def test_a_registry_with_another_fingerprint_loses_its_credentials(state: dict[str, Any]) -> None:
    registry = make_registry("registry.example.com", OWN)
    move(registry, **state)
    assert own(registry) is None


@pytest.mark.parametrize("state", [{}, {"name": "Scanned"}, {"registry_url": "https://Registry.example.com:443/team"}])
def test_a_registry_with_the_same_fingerprint_keeps_its_credentials(state: dict[str, Any]) -> None:
    registry = make_registry("registry.example.com", OWN)
    move(registry, **state)
    assert own(registry) == OWN


def test_credentials_that_come_with_the_change_are_kept() -> None:
    registry = make_registry("registry.example.com", OWN)
    move(registry, GIVEN, registry_url="other.example.com")
    assert own(registry) == GIVEN


def test_credentials_can_be_removed() -> None:
    registry = make_registry(credentials=OWN)
    move(registry, remove=True)
    assert own(registry) is None


@pytest.mark.parametrize("state", [{"registry_url": "no host"}, {"ca_certificate": "no certificate"}])
def test_an_invalid_change_changes_nothing(state: dict[str, Any]) -> None:
    registry = make_registry("registry.example.com", OWN)
    with pytest.raises(InvalidInputError):
        move(registry, **state)
    assert (fresh(registry).registry_url, own(registry)) == ("registry.example.com", OWN)


def test_a_queued_push_with_its_own_credentials_fails_when_the_registry_was_changed() -> None:
    registry = make_registry(NOWHERE)
    job = push(build_commit(make_algorithm()), registry, GIVEN)
    move(registry, registry_url="127.0.0.1:1")
    run_job(job.id, PushWork)
    after = fresh(job)
    assert (after.state, after.error_class, after.credentials) == (JobState.FAILED, ErrorClass.INVALID, None)
    assert "The registry was changed" in (after.error_message or "")


def test_a_queued_push_with_the_registrys_credentials_goes_to_the_new_address() -> None:
    registry = make_registry("registry.example.com", OWN)
    algorithm = make_algorithm()
    job = push(build_commit(algorithm), registry)
    move(registry, Credentials("owner", "new"), registry_url=NOWHERE)
    row = one_row(ImagePush, id=job.push_id)
    assert row.registry_url == NOWHERE
    assert row.image.startswith(f"{NOWHERE}/")
    assert fresh(job).lock_name == image_lock_name(fresh(registry), algorithm, HASH)
    run_job(job.id, PushWork)
    assert NOWHERE in (fresh(job).error_message or "")
    assert fresh(job).error_class == ErrorClass.TRANSIENT


def test_a_push_that_ran_while_the_registry_was_changed_does_not_go_to_a_reference_that_it_has_not_locked() -> None:
    registry = make_registry("localhost:2")
    job = push(build_commit(make_algorithm()), registry)
    claim = make_claim(job)
    move(registry, registry_url=NOWHERE)
    assert one_row(ImagePush, id=job.push_id).registry_url == "localhost:2"
    end_badly(claim, ErrorClass.TRANSIENT)
    change(job, next_attempt_at=None)
    run_job(job.id, PushWork)
    assert fresh(job).state == JobState.FAILED
    assert "was changed" in (fresh(job).error_message or "")


def test_a_push_whose_registry_was_deleted_fails() -> None:
    registry = make_registry(NOWHERE)
    job = push(build_commit(make_algorithm()), registry)
    change(registry, deleted_at=1)
    run_job(job.id, PushWork)
    assert (fresh(job).state, fresh(job).error_message) == (JobState.FAILED, "The registry was deleted.")
    assert one_row(ImagePush, id=job.push_id).state == PushState.FAILED
