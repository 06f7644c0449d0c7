"""Key rotation, while others write."""

import base64
import os

import pytest

from shared.db.engine import database
from shared.db.models import DefaultLevel, Registry
from shared.encryption import Keyring, keyring
from shared.git.sources import decrypt_source_credentials, encrypt_source_credentials
from shared.key_rotation import BATCH_SIZE, count_outdated, rotate
from shared.registries.credentials import (
    CredentialsUpdate,
    decrypt_default_credentials,
    decrypt_job_credentials,
    decrypt_push_account,
    decrypt_registry_credentials,
    encrypt_push_account,
    encrypt_registry_credentials,
)
from shared.registries.defaults import set_default
from shared.registry.credentials import Credentials
from shared.settings import settings
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, columns_of, fresh, make_registry, push

OWN = Credentials("own", "own-password")
GIVEN = Credentials("given", "given-password")
PUSHER = Credentials("pusher", "pusher-password")
OF_DEFAULT = Credentials("default", "default-password")
FRESH_KEY = os.urandom(32)

pytestmark = pytest.mark.usefixtures("installation")


def both_keys() -> Keyring:
    """The installation's key decrypts, a fresh one encrypts."""
    old = {key_id: base64.b64decode(key.get_secret_value()) for key_id, key in settings().secret_keys.items()}
    return Keyring({"fresh": FRESH_KEY, **old})


FRESH_ALONE = Keyring({"fresh": FRESH_KEY})


def password_in(registry: Registry) -> str:
    credentials = decrypt_registry_credentials(FRESH_ALONE, fresh(registry))
    assert credentials is not None
    return credentials.password


def test_every_sealed_column_is_encrypted_again() -> None:
    algorithm = make_algorithm()
    change(algorithm, source_credentials=encrypt_source_credentials(keyring(), algorithm, "git-user", "git-password"))
    registry = make_registry(credentials=OWN)
    change(registry, push_credentials=encrypt_push_account(keyring(), registry, PUSHER))
    with database().writing() as session:
        default = set_default(
            session, keyring(), DefaultLevel.ALGORITHM, algorithm.id, registry.id, CredentialsUpdate(OF_DEFAULT)
        ).row
    assert default is not None
    job = push(build_commit(algorithm), registry, GIVEN)

    seen: list[None] = []
    assert count_outdated(database(), both_keys()) == 5
    rotated = rotate(database(), both_keys(), lambda: seen.append(None))

    assert (rotated.reencrypted, rotated.undecryptable, len(seen)) == (5, [], 5)
    assert count_outdated(database(), both_keys()) == 0
    assert decrypt_registry_credentials(FRESH_ALONE, fresh(registry)) == OWN
    assert decrypt_push_account(FRESH_ALONE, fresh(registry)) == PUSHER
    assert decrypt_default_credentials(FRESH_ALONE, fresh(default)) == OF_DEFAULT
    assert decrypt_source_credentials(FRESH_ALONE, fresh(algorithm)) == ("git-user", "git-password")
    assert decrypt_job_credentials(FRESH_ALONE, fresh(job)) == GIVEN


def test_nothing_but_the_ciphertext_changes() -> None:
    registry = make_registry(credentials=OWN)
    change(registry, updated_at=1234)
    before = columns_of(registry)
    rotate(database(), both_keys())
    after = columns_of(registry)
    assert before.pop("credentials") != after.pop("credentials")
    assert after == before


def test_more_rows_than_one_batch() -> None:
    registries = [make_registry(credentials=OWN) for _ in range(BATCH_SIZE + 2)]
    make_registry()  # has no credentials, so it is not counted
    assert rotate(database(), both_keys()).reencrypted == len(registries)
    assert rotate(database(), both_keys()).reencrypted == 0
    assert {password_in(registry) for registry in registries} == {OWN.password}


def test_a_value_that_cannot_be_decrypted_is_reported_and_left_as_it_is() -> None:
    lost, moved, good = (make_registry(credentials=OWN) for _ in range(3))
    unknown = encrypt_registry_credentials(Keyring({"gone": os.urandom(32)}), lost, OWN)
    change(lost, credentials=unknown)
    change(moved, credentials=fresh(good).credentials)

    rotated = rotate(database(), both_keys())

    assert rotated.reencrypted == 1
    assert {(column, row) for column, row, _reason in rotated.undecryptable} == {
        ("registries.credentials", lost.id),
        ("registries.credentials", moved.id),
    }
    assert "'gone', which is not among LONGSHORE_SECRET_KEYS" in rotated.undecryptable[0][2]
    assert fresh(lost).credentials == unknown
    assert password_in(good) == OWN.password


def test_a_password_that_is_changed_meanwhile_is_not_overwritten() -> None:
    registries = [make_registry(credentials=OWN) for _ in range(20)]
    ring = both_keys()

    def replace() -> None:
        for registry in reversed(registries):
            change(
                registry, credentials=encrypt_registry_credentials(ring, registry, Credentials("own", "new-password"))
            )

    run_concurrently(lambda: rotate(database(), ring), replace)
    assert {password_in(registry) for registry in registries} == {"new-password"}
