"""Blob locations: hints that one push leaves for the next."""

import pytest

from shared.db.engine import database
from shared.encryption import keyring
from shared.registries.blob_locations import known_blob_locations, record_blob_locations
from shared.registries.credentials import CredentialsUpdate
from shared.registries.rows import change_registry, find_registry
from tests.concurrency import run_concurrently
from tests.rows import make_registry

pytestmark = pytest.mark.usefixtures("installation")

ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "123")


def note(digests: list[str], repository: str, registry_id: str = "r1") -> None:
    with database().writing() as session:
        record_blob_locations(session, registry_id, digests, repository)


def known(*digests: str, registry_id: str = "r1") -> dict[str, str]:
    with database().reading() as session:
        return dict(known_blob_locations(session, registry_id, digests))


def test_locations_are_known_for_their_own_registry_only() -> None:
    note([ONE, TWO], "acme/first")
    assert known(ONE, TWO, THREE) == {ONE: "acme/first", TWO: "acme/first"}
    assert known(ONE, registry_id="r2") == {}


def test_the_latest_location_is_kept() -> None:
    note([ONE], "acme/first")
    note([ONE, TWO], "acme/second")
    assert known(ONE, TWO) == {ONE: "acme/second", TWO: "acme/second"}


def test_a_registry_with_a_new_address_has_no_known_locations() -> None:
    registry = make_registry("registry.example.com/old")
    note([ONE], "old/acme/first", registry.id)
    with database().writing() as session:
        row = find_registry(session, registry.id, for_update=True)
        change_registry(session, keyring(), row, {"name": "renamed"}, CredentialsUpdate())
    assert known(ONE, registry_id=registry.id) == {ONE: "old/acme/first"}
    with database().writing() as session:
        row = find_registry(session, registry.id, for_update=True)
        change_registry(session, keyring(), row, {"registry_url": "elsewhere.example.com"}, CredentialsUpdate())
    assert known(ONE, registry_id=registry.id) == {}


def test_pushes_that_record_the_same_layers_at_the_same_time_do_not_fail() -> None:
    orders = [[ONE, TWO, THREE], [THREE, TWO, ONE]] * 4
    run_concurrently(*[lambda order=order: note(order, "acme/first") for order in orders])
    assert set(known(ONE, TWO, THREE)) == {ONE, TWO, THREE}
