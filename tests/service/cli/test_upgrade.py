"""A database of an older schema (migration 0007) goes on: rows, states, ciphertexts, live jobs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import MetaData, inspect, text

from cli.runtime import configuration, migrate
from shared.db.engine import Database
from shared.db.models import (
    Algorithm,
    Build,
    ImagePush,
    Instance,
    InstanceState,
    Job,
    JobState,
    PeriodicRun,
    PushEvent,
    PushTally,
    Refresh,
    Registry,
    Webhook,
    WorkerProcess,
)
from shared.encryption import Keyring, load_keyring
from shared.git.sources import decrypt_source_credentials
from shared.jobs.claims import claim_job
from shared.refreshes import read_steps
from shared.registries.credentials import decrypt_job_credentials, decrypt_registry_credentials
from shared.settings import load_settings
from shared.webhooks.signing import decrypt_secret
from tests.environment import longshore_environment

NOW = int(time.time() * 1000)
HASH = "4375df6181ea7726a815fbe51272b159f29ef0ab"
IMAGE = "registry.example.com/alice/hello@sha256:" + "a" * 64
SECRET = {"username": "pusher", "password": "secret"}
FINGERPRINT = "f" * 64
COMMON = {"owner": "alice", "algorithm_id": "a-1", "version_id": "v-1", "created_at": NOW}
"""Columns that several tables have."""


@pytest.fixture(params=["sqlite", "postgresql"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database at migration 0007."""
    url = f"sqlite:///{tmp_path / 'longshore.db'}"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("empty_postgres_url"))
    with longshore_environment(tmp_path, tables=False, database_url=url):
        opened = Database(url)
        with opened.writing() as session:
            command.upgrade(configuration(session.connection()), "0007")
        yield opened
        opened.close()


@pytest.fixture
def keyring(before: Database) -> Keyring:  # noqa: ARG001 - its environment has the keys
    """The keys of the installation."""
    return load_keyring(load_settings())


def insert(database: Database, table: str, **values: Any) -> None:
    """Insert a row as the code of before did: into the table of that name, whatever the models say by now."""
    metadata = MetaData()
    metadata.reflect(database.engine, only=[table])
    with database.writing() as session:
        session.execute(metadata.tables[table].insert().values(**values))


def insert_job(database: Database, job_id: str, values: dict[str, Any]) -> None:
    row = COMMON | {
        "id": job_id,
        "git_hash": HASH,
        "generation": 1,
        "claim": 0,
        "tries": 0,
        "losses": 0,
        "lock_key": f"lock of {job_id}",
        "nudges": 0,
        "state": "queued",
    }
    insert(database, "jobs", **(row | values))


def insert_serving(database: Database, row_id: str, state: str, values: dict[str, Any] | None = None) -> None:
    row = COMMON | {
        "id": row_id,
        "job_id": f"job of {row_id}",
        "image": f"{IMAGE}{row_id}",
        "digest": "sha256:" + "a" * 64,
        "network": "full",
        "message": "It runs.",
        "updated_at": NOW,
    }
    insert(database, "servings", state=state, **(row | (values or {})))


def test_instances_keep_their_states_and_where_they_run(before: Database) -> None:
    insert_serving(before, "s-1", "wanted")
    insert_serving(before, "s-2", "ready", {"runs_as": "container", "endpoint": "unix:s-2", "ready_at": NOW})
    insert_serving(before, "s-3", "stopped", {"ended_at": NOW})
    migrate(before)
    with before.reading() as session:
        rows = {row.id: row for row in session.query(Instance)}
    assert {name: row.state for name, row in rows.items()} == {
        "s-1": InstanceState.PENDING,
        "s-2": InstanceState.READY,
        "s-3": InstanceState.STOPPED,
    }
    assert (rows["s-2"].runtime_ref, rows["s-2"].endpoint) == ("container", "unix:s-2")


def test_queued_and_running_jobs_go_on(before: Database) -> None:
    insert_job(before, "j-1", {"kind": "compile", "nudged_at": NOW - 1, "nudges": 3, "asked_order": 7})
    insert_job(
        before,
        "j-2",
        {
            "kind": "serve",
            "state": "running",
            "claim": 4,
            "lease_owner": "worker/1",
            "lease_expires_at": NOW - 1,
            "serving_id": "s-1",
        },
    )
    migrate(before)
    with before.reading() as session:
        first, second = session.query(Job).order_by(Job.id)
        assert (first.lock_name, first.dispatched_at, first.dispatch_count) == ("lock of j-1", NOW - 1, 3)
        assert (first.request_seq, second.instance_id, second.claim) == (7, "s-1", 4)
    claim = claim_job(before, "j-1", owner="worker/2", lease_seconds=60)
    assert claim is not None
    with before.reading() as session:
        assert session.query(Job).filter_by(id="j-1").one().state == JobState.RUNNING


def test_the_history_of_pushes_keeps_its_stalls(before: Database) -> None:
    insert(before, "image_pushes", **push_row(moved_at=NOW - 5, last_success_order=11))
    event = {"push_id": "p-1", "job_id": "j-1", "generation": 1, "state": "stalled", "message": "", "created_at": NOW}
    for kind in ("stalled-still", "stalled-lost"):
        insert(before, "push_events", kind=kind, **event)
    insert(before, "push_tallies", kind="stalled-still", state="stalled", number=3)
    migrate(before)
    with before.reading() as session:
        row = session.query(ImagePush).one()
        assert (row.progressed_at, row.last_success_seq) == (NOW - 5, 11)
        assert {one.kind for one in session.query(PushEvent)} == {"stalled-no-progress", "stalled-lost"}
        assert session.query(PushTally).one().kind == "stalled-no-progress"


def push_row(**values: Any) -> dict[str, Any]:
    return {
        "id": "p-1",
        "version_id": "v-1",
        "registry_id": "r-1",
        "registry_url": "registry.example.com",
        "job_id": "j-1",
        "generation": 1,
        "claim": 1,
        "state": "stalled",
        "message": "",
        "image": IMAGE,
        "attempt": 1,
        "done_bytes": 0,
        "total_bytes": 0,
        "layers_done": 0,
        "layers_total": 0,
        "created_at": NOW,
        "updated_at": NOW,
        **values,
    }


def test_a_refresh_keeps_its_steps(before: Database) -> None:
    step = {
        "name": "alice/Hello@4375df61",
        "state": "done",
        "step": "It takes no new calls.",
        "serving_id": "s-1",
        "plan": None,
        "started_at": NOW,
        "finished_at": NOW,
    }
    insert(
        before,
        "refreshes",
        job_id="j-1",
        what="runners",
        options={},
        progress=[step],
        released_at=NOW,
        created_at=NOW,
    )
    migrate(before)
    with before.reading() as session:
        row = session.query(Refresh).one()
    assert row.uncordoned_at == NOW
    assert [(one.name, one.state, one.instance_id) for one in read_steps(row.progress)] == [
        ("alice/Hello@4375df61", "done", "s-1")
    ]


def test_periodic_runs_and_workers_are_still_known(before: Database) -> None:
    for name in ("sweep", "tending", "drift", "delivery", "release"):
        insert(before, "marks", name=name, at=NOW)
    insert(before, "worker_nodes", name="host-1", queues=",pushes,", started_at=NOW, seen_at=NOW)
    migrate(before)
    with before.reading() as session:
        assert {row.name for row in session.query(PeriodicRun)} == {
            "sweep",
            "reconcile",
            "drift",
            "delivery",
            "uncordon",
        }
        assert session.query(WorkerProcess).one().name == "host-1"


def test_every_ciphertext_still_opens(before: Database, keyring: Keyring) -> None:
    """The identities are written out as the code of before had them: changed ones would lose every password."""
    insert(
        before,
        "registries",
        id="r-1",
        name="scanned",
        registry_url="registry.example.com",
        verify_tls=True,
        plain_http=False,
        credentials=keyring.encrypt(SECRET, identity="registries/r-1/credentials"),
        failures=0,
        throttles=0,
        probes=0,
        created_at=NOW,
        updated_at=NOW,
    )
    insert_job(
        before,
        "j-1",
        {
            "kind": "push",
            "registry_id": "r-1",
            "registry_fingerprint": FINGERPRINT,
            "credentials": keyring.encrypt(SECRET, identity=f"jobs/j-1/credentials/{FINGERPRINT}"),
        },
    )
    migrate(before)
    with before.reading() as session:
        own = decrypt_registry_credentials(keyring, session.query(Registry).one())
        job = session.query(Job).one()
        given = decrypt_job_credentials(keyring, job)
    assert own is not None
    assert (own.password, given.password) == ("secret", "secret")
    source = keyring.encrypt(SECRET, identity="algorithms/a-1/source")
    assert decrypt_source_credentials(keyring, Algorithm(id="a-1", source_credentials=source)) == ("pusher", "secret")
    secret = keyring.encrypt({"secret": "whsec_1"}, identity="webhooks/w-1/secret")
    assert decrypt_secret(keyring, Webhook(id="w-1", secret=secret)) == "whsec_1"


def test_builds_forget_the_environments_that_were_stored_without_an_owner(before: Database) -> None:
    build = {"id": "b-1", "algorithm_id": "a-1", "version_id": "v-1", "job_id": "j-1", "commit_sha": HASH}
    built = {"status": "succeeded", "log": "", "environment_key": "e" * 64, "image_id": "sha256:" + "a" * 64}
    insert(before, "builds", **build, **built, refreshes_environment=False, created_at=NOW)
    migrate(before)
    with before.reading() as session:
        row = session.query(Build).one()
        assert (row.environment_key, row.image_id) == (None, "sha256:" + "a" * 64)


def test_going_back_leaves_what_was_there(before: Database) -> None:
    insert_serving(before, "s-1", "wanted")
    insert_job(before, "j-1", {"kind": "compile", "nudges": 2})
    migrate(before)
    with before.writing() as session:
        command.downgrade(configuration(session.connection()), "0007")
    with before.engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM servings")).scalar() == "wanted"
        assert connection.execute(text("SELECT nudges, lock_key FROM jobs")).one() == (2, "lock of j-1")
        names = {one["name"] for one in inspect(connection).get_indexes("jobs")}
    assert {"uq_jobs_lock_key_leased", "ix_jobs_queued_lock_key", "uq_jobs_refresh_live"} <= names
