"""Measure reads with a million pushes: lists, a page far into one, and counts by status, from the HTTP request on."""

import socket
import time
from collections.abc import Iterator

from benchmarks.environment import Environment
from benchmarks.history import RECORDED, History, id_of, make_history
from benchmarks.load import exchange, request_bytes
from benchmarks.results import Result
from shared.pushes.queries import tally_events

PUSHES = 1_000_000
RUNS = 25
MILLISECONDS = 20
OF_A_PAGE_WITH_BUILDS = 30
DEEP = f"{PUSHES // 3:016x}"
PATHS = {
    "stalled pushes": "/v1/pushes?status=stalled",
    "failed pushes of a registry": f"/v1/pushes?status=failed&registry={id_of(RECORDED, 3)}",
    "pushes deep in the list": f"/v1/pushes?marker={DEEP}",
    "jobs that wait": "/v1/jobs?state=queued",
    "versions of an algorithm": "/v1/algorithms/owner1/Algorithm1/versions",
    "counts by status": "/metrics",
}


def run(environment: Environment) -> Iterator[Result]:
    for kind in ("sqlite", "postgresql"):
        with environment.installation(kind, "reads") as installation:
            task = environment.progress.add_task(f"a million pushes into {kind}", total=None)
            make_history(installation.database.engine, History(PUSHES))
            with installation.database.writing() as session:
                tally_events(session)  # as the sweep does
            environment.progress.update(task, total=1, completed=1)
            with environment.api(installation) as port, socket.create_connection(("127.0.0.1", port)) as connection:
                for case, path in PATHS.items():
                    request = request_bytes("GET", path, installation.admin_key)
                    exchange(connection, request)  # the first one compiles the statement
                    seconds = [_seconds(connection, request) for _ in range(RUNS)]
                    target = OF_A_PAGE_WITH_BUILDS if case.startswith("versions") else MILLISECONDS
                    yield Result.of(f"{case}, {kind}", [1000 * each for each in seconds], "ms", target)


def _seconds(connection: socket.socket, request: bytes) -> float:
    begun = time.perf_counter()
    exchange(connection, request)
    return time.perf_counter() - begun
