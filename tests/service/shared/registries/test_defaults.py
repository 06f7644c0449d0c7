"""Which credentials push, whom a refusal of them concerns, and races about defaults."""

import uuid
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import select

from shared.commands.compile import enqueue_compile
from shared.commands.push import Enqueued
from shared.commands.repush import Retry, retry_pushes
from shared.db.engine import database
from shared.db.models import Algorithm, DefaultLevel, DefaultRegistry, Job, PauseCause, Registry
from shared.encryption import DecryptionError, keyring
from shared.errors import NotFoundError
from shared.jobs.due import messages_for_registry
from shared.registries.circuit_breaker import record_failure
from shared.registries.credentials import CredentialsUpdate, credential_provider, decrypt_default_credentials
from shared.registries.defaults import applicable_default, remove_defaults_of_registry, set_default
from shared.registries.rows import change_registry, find_registry, lock_with_default
from shared.registry.credentials import Credentials
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import HASH, build_commit, change, end_badly, fresh, make_claim, make_registry, one_row, push, try_claim
from workers.pushes.plan import read_plan

pytestmark = pytest.mark.usefixtures("installation")

OWN, ACCOUNT = Credentials("reader", "reads"), Credentials("account", "pushes")
OF_OWNER, OF_ALGORITHM = Credentials("owner", "pushes too"), Credentials("algorithm", "pushes as well")
GIVEN = Credentials("given", "for one push")


def default_of(algorithm: Algorithm, registry: Registry, credentials: Credentials | None = None) -> DefaultRegistry:
    return _set(DefaultLevel.ALGORITHM, algorithm.id, registry, credentials)


def default_of_owner(owner: str, registry: Registry, credentials: Credentials | None = None) -> DefaultRegistry:
    return _set(DefaultLevel.OWNER, owner, registry, credentials)


def _set(level: DefaultLevel, subject: str, registry: Registry, credentials: Credentials | None) -> DefaultRegistry:
    with database().writing() as session:
        row = set_default(session, keyring(), level, subject, registry.id, CredentialsUpdate(credentials)).row
    assert row is not None
    return row


def add_push_account(registry: Registry, credentials: Credentials) -> None:
    with database().writing() as session:
        row = find_registry(session, registry.id, for_update=True)
        change_registry(session, keyring(), row, {}, CredentialsUpdate(), CredentialsUpdate(credentials))


def push_any(algorithm: Algorithm, registry: Registry, credentials: Credentials | None = None) -> Job:
    """Enqueue the push of a commit that no other push has locked."""
    return push(build_commit(algorithm, f"{uuid.uuid4().hex}01234567"), registry, credentials)


def compile_unnamed(algorithm: Algorithm) -> Enqueued:
    with database().writing() as session:
        return enqueue_compile(session, algorithm, HASH)


def credentials_used(job: Job) -> Credentials | None:
    """Claim a push, and return what its worker would send to the registry."""
    claim = make_claim(job)
    with database().reading() as session:
        return read_plan(session, claim).credentials


def test_the_nearest_credentials_push_and_the_registrys_own_pull() -> None:
    algorithm, registry = make_algorithm(), make_registry(credentials=OWN)
    steps: list[tuple[Callable[[], object], Credentials]] = [
        (lambda: None, OWN),
        (lambda: add_push_account(registry, ACCOUNT), ACCOUNT),
        (lambda: default_of_owner(algorithm.owner, registry), ACCOUNT),
        (lambda: default_of_owner(algorithm.owner, registry, OF_OWNER), OF_OWNER),
        (lambda: default_of(algorithm, registry), OF_OWNER),
        (lambda: default_of(algorithm, registry, OF_ALGORITHM), OF_ALGORITHM),
    ]
    for step, expected in steps:
        step()
        assert credentials_used(push_any(algorithm, registry)) == expected
    assert credentials_used(push_any(algorithm, registry, GIVEN)) == GIVEN
    assert credential_provider(fresh(registry)).for_reading() == OWN


def test_the_credentials_of_a_default_push_to_its_registry_only_and_for_its_subject_only() -> None:
    algorithm, registry, other = make_algorithm(), make_registry(), make_registry(credentials=OWN)
    default_of(algorithm, registry, OF_ALGORITHM)
    assert credentials_used(push_any(algorithm, other)) == OWN
    assert credentials_used(push_any(make_algorithm(algorithm.owner, "Other"), registry)) is None
    default_of_owner(algorithm.owner, registry, OF_OWNER)
    assert credentials_used(push_any(make_algorithm(), registry)) is None


def test_a_retry_uses_the_credentials_that_the_default_has_by_then() -> None:
    algorithm, registry = make_algorithm(), make_registry()
    default_of(algorithm, registry, OF_OWNER)
    job = push_any(algorithm, registry)
    end_badly(make_claim(job))
    default_of(algorithm, registry, OF_ALGORITHM)
    assert credentials_used(one_row(Job, id=retried(1)[0])) == OF_ALGORITHM


def retried(number: int) -> list[str]:
    done = retry_pushes(database(), Retry())
    assert (len(done.jobs), done.skipped) == (number, [])
    return done.jobs


@pytest.mark.parametrize("stored", ["account", "default"])
def test_a_push_that_had_credentials_of_its_own_is_repeated_with_stored_ones(stored: str) -> None:
    algorithm, registry = make_algorithm(), make_registry()
    end_badly(make_claim(push_any(algorithm, registry, GIVEN)))
    (skipped,) = retry_pushes(database(), Retry()).skipped
    assert "Send credentials" in skipped.reason
    if stored == "account":
        add_push_account(registry, ACCOUNT)
    else:
        default_of(algorithm, registry, ACCOUNT)
    assert credentials_used(one_row(Job, id=retried(1)[0])) == ACCOUNT


def test_credentials_copied_to_another_default_or_registry_cannot_be_decrypted() -> None:
    algorithm, registry = make_algorithm(), make_registry()
    row = default_of(algorithm, registry, OF_ALGORITHM)
    assert decrypt_default_credentials(keyring(), row) == OF_ALGORITHM
    assert OF_ALGORITHM.password not in str(row.push_credentials)
    thief = default_of_owner("thief", registry)
    change(thief, push_credentials=row.push_credentials)
    change(row, registry_id=make_registry("thief.example.com").id)
    for copied in (thief, row):
        with pytest.raises(DecryptionError):
            decrypt_default_credentials(keyring(), fresh(copied))


def test_a_refusal_of_a_defaults_credentials_concerns_nobody_else() -> None:
    algorithm, registry = make_algorithm(), make_registry(credentials=OWN)
    assert not make_claim(push_any(algorithm, registry)).own_credentials
    default_of(algorithm, registry)
    assert not make_claim(push_any(algorithm, registry)).own_credentials
    default_of(algorithm, registry, OF_ALGORITHM)
    assert make_claim(push_any(algorithm, registry)).own_credentials
    assert not make_claim(push_any(make_algorithm(), registry)).own_credentials


def test_a_push_with_a_defaults_credentials_goes_to_a_registry_that_refuses_the_recorded_ones() -> None:
    registry, algorithm = make_registry(credentials=OWN), make_algorithm()
    default_of_owner(algorithm.owner, registry, OF_OWNER)
    with database().writing() as session:
        record_failure(session, registry.id, PauseCause.AUTH, "Refused.", pause_after=1, probe_delays=(300,))
    accepted, waiting = push_any(algorithm, registry), push_any(make_algorithm(), registry)
    with database().reading() as session:
        assert [message.job_id for message in messages_for_registry(session, registry.id)] == [accepted.id]
    assert try_claim(waiting) is None
    assert make_claim(accepted).own_credentials


def test_credentials_that_a_default_got_after_the_claim_are_not_used_by_it() -> None:
    """A refusal of them would count against the registry, as the claim says that it has none of its own."""
    algorithm, registry = make_algorithm(), make_registry(credentials=OWN)
    claim = make_claim(push_any(algorithm, registry))
    default_of(algorithm, registry, OF_ALGORITHM)
    with database().reading() as session:
        assert read_plan(session, claim).credentials == OWN


def test_a_default_that_changes_while_a_build_runs_does_not_move_its_push() -> None:
    algorithm, first, second = make_algorithm(), make_registry(), make_registry()
    default_of(algorithm, first)
    requested = compile_unnamed(algorithm)
    default_of(algorithm, second)
    assert one_row(Job, parent_id=requested.job.id).registry_id == first.id
    assert list(requested.registry_ids) == [first.id]


def test_a_default_without_its_registry_is_passed_over() -> None:
    algorithm, gone, present = make_algorithm(), make_registry(), make_registry()
    default_of(algorithm, gone)
    default_of_owner(algorithm.owner, present)
    change(gone, deleted_at=1)
    assert list(compile_unnamed(algorithm).registry_ids) == [present.id]


def test_two_registries_become_the_default_at_once_and_one_is(postgres_installation: str) -> None:  # noqa: ARG001
    registries = [make_registry(is_default=True), make_registry(), make_registry()]

    def move_to(registry: Registry) -> Callable[[], None]:
        def run() -> None:
            with database().writing() as session:
                lock_with_default(session, registry.id)
                row = find_registry(session, registry.id, for_update=True)
                change_registry(session, keyring(), row, {"is_default": True}, CredentialsUpdate())

        return run

    for _ in range(5):
        run_concurrently(*[move_to(registry) for registry in registries[1:]])
        with database().reading() as session:
            assert len(session.scalars(select(Registry.id).where(Registry.is_default)).all()) == 1
        move_to(registries[0])()


def test_a_registry_is_deleted_while_it_becomes_a_default(postgres_installation: str) -> None:  # noqa: ARG001
    """Whichever comes first: no default names a deleted registry, and no compile fails because of it."""
    algorithm = make_algorithm()

    def delete(registry: Registry) -> None:
        with database().writing() as session:
            row = find_registry(session, registry.id, for_update=True)
            row.deleted_at = 1
            remove_defaults_of_registry(session, row)

    def become(registry: Registry) -> None:
        try:
            default_of(algorithm, registry)
        except NotFoundError as error:
            assert registry.id in error.message  # noqa: PT017 - it may also go well

    for _ in range(5):
        registry = make_registry()
        default_of(algorithm, registry)
        run_concurrently(partial(delete, registry), partial(become, registry), partial(compile_unnamed, algorithm))
        with database().reading() as session:
            assert applicable_default(session, algorithm.owner, algorithm.id) is None
            assert session.scalars(select(DefaultRegistry.id)).all() == []
