"""Measure two thousand re-pushes of versions that the registry has: the cost of a push without the transfer."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

from sqlalchemy import insert, select

from benchmarks.environment import Environment
from benchmarks.load import exchange, request_bytes
from benchmarks.results import Result
from benchmarks.transfers.installation import Algorithm, Installation, installation
from shared.db.engine import Database
from shared.db.models import Build, ImagePush, Version

VERSIONS = 2000
PROCESSES = 2
CALLERS = 4
TIMEOUT_SECONDS = 600
POLL_INTERVAL_SECONDS = 0.1


def run(environment: Environment) -> Iterator[Result]:
    """Measure seconds per push, from the first request to the last success, with one pool of two processes."""
    directory = environment.directory / "repushes"
    directory.mkdir()
    task = environment.progress.add_task("2,000 versions into a registry", total=None)
    with installation(directory, concurrency=PROCESSES) as here, closing(_database(here)) as database:
        algorithm = here.new_algorithm(requirements="")
        commit = algorithm.commit()
        here.until_done(algorithm.compile(commit))
        registry_id, _ = here.new_registry()
        hashes = _like(database, commit)
        _push_all(here, database, algorithm, registry_id, hashes)
        environment.progress.update(task, description="2,000 re-pushes", total=1, completed=1)
        seconds = _push_all(here, database, algorithm, registry_id, hashes)
    yield Result.of("2,000 re-pushes, each", [seconds / VERSIONS], "s", 0.02)


def _database(here: Installation) -> Database:
    return Database(f"sqlite:///{here.directory / 'longshore' / 'longshore.db'}")


def _like(database: Database, commit: str) -> list[str]:
    """Make versions with the image of one build: two thousand compiles would measure builds."""
    hashes = [f"{number:040x}" for number in range(1, VERSIONS + 1)]
    with database.writing() as session:
        build = session.scalars(select(Build).where(Build.commit_sha == commit)).one()
        image = {"image_id": build.image_id, "manifest_digest": build.manifest_digest}
        for number, git_hash in enumerate(hashes):
            version_id, build_id = f"version-{number}", f"build-{number}"
            session.execute(
                insert(Version).values(id=version_id, algorithm_id=build.algorithm_id, git_hash=git_hash),
            )
            session.execute(
                insert(Build).values(
                    id=build_id, algorithm_id=build.algorithm_id, version_id=version_id, job_id=build.job_id,
                    commit_sha=git_hash, status=build.status, **image,
                )
            )  # fmt: skip
    return hashes


def _push_all(
    here: Installation, database: Database, algorithm: Algorithm, registry_id: str, hashes: list[str]
) -> float:
    """Push every version, requested by a few concurrent callers; return the seconds until all have succeeded."""
    body = json.dumps({"registry_push_credentials": {"registry_id": registry_id}}).encode()
    requests = [
        request_bytes("POST", f"{algorithm.path}/versions/{git_hash}/registry", here.key, body) for git_hash in hashes
    ]
    begun = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(lambda number: _send(here, requests[number::CALLERS]), range(CALLERS)))
    while _unfinished(database):
        if time.perf_counter() - begun > TIMEOUT_SECONDS:
            raise RuntimeError(f"the re-pushes did not end within {TIMEOUT_SECONDS} seconds")
        time.sleep(POLL_INTERVAL_SECONDS)
    return time.perf_counter() - begun


def _send(here: Installation, requests: Sequence[bytes]) -> None:
    address = urlsplit(here.url)
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=60) as connection:
        for request in requests:
            exchange(connection, request)


def _unfinished(database: Database) -> bool:
    with database.reading() as session:
        states = set(session.scalars(select(ImagePush.state).distinct()))
    if states - {"queued", "in-progress", "succeeded"}:
        raise RuntimeError(f"not all re-pushes succeeded: {', '.join(sorted(states))}")
    return states != {"succeeded"}
