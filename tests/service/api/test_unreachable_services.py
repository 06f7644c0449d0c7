"""Without the broker, requests are accepted; without the database, they fail completely."""

from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.dispatch import producer, send
from shared.db.engine import database
from shared.db.models import AuditEvent, ImagePush, Job, JobKind, PushState
from shared.jobs.dispatch import JobMessage
from tests.environment import longshore_environment
from tests.git_service import make_algorithm, make_key
from tests.rows import build_commit, make_registry, one_row
from tests.service.api.invocation import Api

DELETE_BACKENDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid"


def rows(model: type) -> int:
    with database().reading() as session:
        return len(session.query(model).all())


def test_a_push_is_accepted_while_redis_is_away(admin: Api) -> None:
    build = build_commit(make_algorithm())
    registry = make_registry()
    path = f"/v1/algorithms/{build.algorithm_id}/versions/{build.commit_sha}/registry"
    accepted = admin.call("POST", path, {"registry_id": registry.id})  # the settings name an unreachable Redis
    assert accepted.status_code == 204
    assert one_row(Job, id=accepted.headers["X-Job-Id"]).kind == JobKind.PUSH
    assert one_row(ImagePush, registry_id=registry.id).state == PushState.QUEUED


@pytest.mark.usefixtures("admin")
def test_a_message_arrives_though_redis_forgot_everything(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.settings import settings

    monkeypatch.setenv("LONGSHORE_REDIS_URL", redis_url)
    settings.cache_clear()
    producer.cache_clear()
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        send([JobMessage("one", JobKind.PUSH)])
        client.flushdb()
        send([JobMessage("two", JobKind.PUSH)])
        assert client.llen("pushes") == 1
    producer.cache_clear()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_database_that_is_away_is_said(any_app: Flask, tmp_path: Path, method: str) -> None:
    with longshore_environment(tmp_path, tables=False, database_url="postgresql+psycopg://nobody@127.0.0.1:1/none"):
        response = Api(any_app, "lskey").call(method, "/v1/registries", {} if method == "POST" else None)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "send it again" in response.get_json()["error"]["message"]
        metrics = any_app.test_client().get("/metrics")
        assert (metrics.status_code, metrics.is_json) == (503, True)


def test_a_pool_that_is_used_up_is_no_error_of_ours(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def used_up(*_arguments: object, **_options: object) -> None:
        raise PoolTimeout("QueuePool limit reached")

    database().close()
    monkeypatch.setattr(database().engine.pool, "_do_get", used_up)
    assert admin.call("GET", "/v1/registries").status_code == 503


@pytest.mark.parametrize("moment", ["statement", "commit"])
@pytest.mark.usefixtures("any_app", "postgres_installation")
def test_a_connection_that_breaks_in_the_middle_leaves_nothing_half_done(any_app: Flask, moment: str) -> None:
    from shared.db.models import KeyKind

    admin = Api(any_app, make_key("admin", KeyKind.ADMIN))
    build = build_commit(make_algorithm())
    registry = make_registry()
    before = rows(Job)
    broken: list[bool] = []

    def break_it(connection: Any, *_arguments: object) -> None:
        pid = connection.connection.driver_connection.info.backend_pid
        with database().engine.connect() as other:
            other.execute(text(DELETE_BACKENDS), {"pid": pid})
        broken.append(True)

    def at_statement(connection: Connection, _cursor: object, statement: str, *_arguments: object) -> None:
        if not broken and statement.startswith("INSERT INTO jobs"):
            break_it(connection)

    def at_commit(connection: Connection) -> None:
        if not broken:
            break_it(connection)

    hook = ("before_cursor_execute", at_statement) if moment == "statement" else ("commit", at_commit)
    event.listen(database().engine, *hook)
    path = f"/v1/algorithms/{build.algorithm_id}/versions/{build.commit_sha}/registry"
    try:
        refused = admin.call("POST", path, {"registry_id": registry.id}, Idempotency_Key="once")
    finally:
        event.remove(database().engine, *hook)
    assert (refused.status_code, broken) == (503, [True])
    assert (rows(Job), rows(ImagePush), rows(AuditEvent)) == (before, 0, 0)
    again = admin.call("POST", path, {"registry_id": registry.id}, Idempotency_Key="once")
    assert (again.status_code, rows(Job)) == (204, before + 1)


@pytest.mark.usefixtures("any_app", "sqlite_installation", "monkeypatch")
def test_a_locked_sqlite_database_is_said(any_app: Flask) -> None:
    from shared.db.models import KeyKind

    admin = Api(any_app, make_key("admin", KeyKind.ADMIN))

    def locked(*_arguments: object) -> None:
        raise OperationalError("BEGIN IMMEDIATE", {}, Exception("database is locked"))

    event.listen(database().engine, "begin", locked)
    try:
        assert admin.call("POST", "/v1/registries", {"registry_url": "registry.example.com"}).status_code == 503
    finally:
        event.remove(database().engine, "begin", locked)
