"""Credentials of registries (rule 5): encrypted for their row, and returned by the provider of a registry."""

import pytest

from shared.db.models import Job, Registry
from shared.encryption import DecryptionError, keyring
from shared.errors import ErrorClass, WorkError
from shared.registries.credentials import (
    CredentialsError,
    credential_provider,
    decrypt_job_credentials,
    decrypt_registry_credentials,
    encrypt_registry_credentials,
)
from shared.registry.credentials import Credentials
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, fresh, make_registry, one_row, push
from workers.jobs.executor import run_job
from workers.pushes.push import PushWork

pytestmark = pytest.mark.usefixtures("installation")

OWN = Credentials("owner", "open sesame")
GIVEN = Credentials("pusher", "open barley")


def registry_without_key() -> Registry:
    registry = make_registry("localhost:1")
    ciphertext = encrypt_registry_credentials(keyring(), registry, OWN)
    change(registry, credentials="gone." + ciphertext.partition(".")[2])
    return fresh(registry)


def test_credentials_are_stored_encrypted() -> None:
    registry = make_registry(credentials=OWN)
    assert decrypt_registry_credentials(keyring(), fresh(registry)) == OWN
    assert OWN.password not in (registry.credentials or "")


def test_credentials_copied_to_another_registry_cannot_be_decrypted() -> None:
    registry, thief = make_registry(credentials=OWN), make_registry("thief.example.com")
    change(thief, credentials=registry.credentials)
    with pytest.raises(DecryptionError):
        decrypt_registry_credentials(keyring(), fresh(thief))


def test_credentials_copied_to_another_job_cannot_be_decrypted() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    job, other = push(build, registry, GIVEN), push(build, make_registry())
    assert decrypt_job_credentials(keyring(), job) == GIVEN
    copied = Job(id=other.id, registry_fingerprint=job.registry_fingerprint, credentials=job.credentials)
    with pytest.raises(DecryptionError):
        decrypt_job_credentials(keyring(), copied)


def test_a_push_uses_the_credentials_given_for_it_else_the_registrys_own() -> None:
    build, registry = build_commit(make_algorithm()), make_registry(credentials=OWN)
    provider = credential_provider(registry)
    assert provider.for_push(push(build, registry)) == OWN
    assert provider.for_push(push(build, registry, GIVEN)) == GIVEN
    assert provider.for_reading() == OWN
    assert credential_provider(make_registry("open.example.com")).for_reading() is None


def test_credentials_are_not_sent_to_a_registry_that_was_changed() -> None:
    registry = make_registry(credentials=OWN)
    job = push(build_commit(make_algorithm()), registry, GIVEN)
    change(registry, verify_tls=False)
    with pytest.raises(WorkError, match="The registry was changed") as caught:
        credential_provider(fresh(registry)).for_push(job)
    assert caught.value.error_class == ErrorClass.INVALID


def test_credentials_whose_key_is_gone_cannot_be_used_for_reading() -> None:
    with pytest.raises(CredentialsError, match="'gone'") as caught:
        credential_provider(registry_without_key()).for_reading()
    assert caught.value.error_class == ErrorClass.AUTH


def test_credentials_whose_key_is_gone_fail_the_push_with_a_message() -> None:
    registry = registry_without_key()
    job = push(build_commit(make_algorithm()), registry)
    run_job(job.id, PushWork)
    assert fresh(job).error_class == ErrorClass.INVALID
    assert "'gone'" in (fresh(job).error_message or "")
    assert isinstance(one_row(Job, id=job.id).finished_at, int)
