"""Limits of git clients: how many requests, and how large a push; and what the audit trail has of it."""

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from sqlalchemy import select

from api.gateway.server import listening
from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent
from shared.settings import Settings
from tests.concurrency import TIMEOUT_SECONDS
from tests.git_service import GitService, WorkTree, git_service, make_algorithm, make_key, url_with_key
from tests.rows import one_row
from tests.service.api.git.test_access import basic, get, refs

MAX_REQUESTS = 4
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[GitService]:
    """A git service that answers four requests of a key in a minute, and two of nobody's key from an address."""
    directory = tmp_path_factory.mktemp("strict")
    with git_service(directory, redis_url=redis_url, rate_limit_git=MAX_REQUESTS, rate_limit_unknown=2) as running:
        yield running


@pytest.fixture
def uncounted(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()


@contextmanager
def gateway_before(service: GitService) -> Iterator[GitService]:
    """The same service as callers reach it: through the gateway."""
    ready, stop = threading.Event(), threading.Event()
    ports: list[int] = []

    async def run() -> None:
        async with listening(Settings(port=0, git_url=service.url, shutdown_seconds=1)) as port:
            ports.append(port)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(TIMEOUT_SECONDS)
        yield replace(service, url=f"http://127.0.0.1:{ports[0]}")
    finally:
        stop.set()
        thread.join()


def events(algorithm: Algorithm, action: str) -> list[AuditEvent]:
    with database().reading() as session:
        query = select(AuditEvent).where(AuditEvent.action == action, AuditEvent.actor == algorithm.owner)
        return list(session.scalars(query))


@pytest.mark.usefixtures("strict", "uncounted")
def test_too_many_requests_of_an_owner_are_refused_whatever_they_ask_for(strict: GitService) -> None:
    algorithm = make_algorithm()
    key, another, others = make_key(algorithm.owner), make_key(algorithm.owner), make_algorithm()
    unknown = f"{strict.url}/git/nobody/Nothing.git/info/refs?service=git-upload-pack"
    assert [get(unknown, basic(key)).status for _ in range(MAX_REQUESTS)] == [404] * MAX_REQUESTS
    refused = get(refs(algorithm), basic(key))
    assert refused.status == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert re.match(rb"More than 4 git requests within a minute; retry in \d+ s\.\n", refused.data)
    assert get(refs(algorithm), basic(another)).status == 429, "all keys of an owner count together"
    assert get(refs(others), basic(make_key(others.owner))).status == 200


@pytest.mark.usefixtures("strict", "uncounted")
def test_git_shows_its_user_why(strict: GitService, tree: WorkTree) -> None:
    algorithm = make_algorithm()
    url = url_with_key(strict, algorithm, make_key(algorithm.owner))
    assert tree.push(url).returncode == 0
    tree.git("ls-remote", url, check=False)
    tree.git("ls-remote", url, check=False)
    refused = tree.push(url)
    assert refused.returncode != 0
    assert "More than 4 git requests within a minute" in refused.stderr


def test_who_guesses_keys_is_slowed_down_and_who_asks_without_one_is_not(tmp_path: Path) -> None:
    with git_service(tmp_path, rate_limit_unknown=1):
        algorithm = make_algorithm()
        key = make_key(algorithm.owner)
        assert {get(refs(algorithm)).status for _ in range(8)} == {401}, "git begins every exchange so"
        # Each of the service's two processes counts for itself.
        assert [get(refs(algorithm), basic("guess")).status for _ in range(4)].count(429) >= 2
        assert get(refs(algorithm), basic(key)).status == 200


@pytest.mark.usefixtures("service")
def test_a_push_that_is_not_allowed_is_written_down() -> None:
    algorithm, stranger = make_algorithm(settings={"source_visibility": "open"}), make_algorithm()
    key = make_key(stranger.owner)
    assert get(refs(algorithm, "git-receive-pack"), basic(key)).status == 403
    assert get(refs(algorithm), basic(key)).status == 200
    (denied,) = events(stranger, "denied")
    assert denied.detail["path"] == f"/git/{algorithm.path}.git/info/refs?service=git-receive-pack"
    assert (denied.address, denied.key_id) == ("127.0.0.1", denied.target_id)
    assert key not in str(denied.detail)


def test_a_push_that_compiles_is_its_keys(service: GitService, tree: WorkTree) -> None:
    algorithm = make_algorithm()
    key = make_key(algorithm.owner)
    for _ in range(2):
        assert tree.push(url_with_key(service, algorithm, key)).returncode == 0
    (pushed,) = events(algorithm, "git.push")
    assert (pushed.target_id, pushed.detail["commit"]) == (algorithm.id, tree.head)
    assert pushed.key_id is not None
    assert one_row(AuditEvent, id=pushed.id).address == "127.0.0.1"


@pytest.mark.parametrize("through_gateway", [False, True])
def test_a_push_over_the_limit_is_refused_with_a_sentence(
    service: GitService, tree: WorkTree, through_gateway: bool
) -> None:
    algorithm = make_algorithm()
    tree.write("noise", os.urandom(6 * MEBIBYTE))  # git sends it chunked: over http.postBuffer, which is 1 MiB
    tree.commit()
    if through_gateway:
        with gateway_before(service) as reached:
            refused = tree.push(url_with_key(reached, algorithm, make_key(algorithm.owner)))
    else:
        refused = tree.push(url_with_key(service, algorithm, make_key(algorithm.owner)))
    assert refused.returncode != 0
    assert "exceeds maximum allowed size (2.00 MiB)" in refused.stderr
