"""Measure requests per second: push status and re-push of a version, compared with an empty Flask view."""

import json
import sys
from collections.abc import Iterator

from benchmarks.environment import Environment
from benchmarks.history import PUSHES_A_VERSION, RECORDED, History, hash_of, id_of, make_history
from benchmarks.load import request_bytes, requests_per_second
from benchmarks.results import Result
from dev.services.processes import free_port

HISTORY = History(pushes=40_000, queued=0)
RUNS = 5
SECONDS = 2.0
VERSIONS = 250
"""Versions of the first algorithm: no two concurrent requests are for the same one."""
PATH = "/v1/algorithms/owner1/Algorithm1/versions/{}/registry"
GET_TARGETS = {"sqlite": 0.3, "postgresql": 0.15}
POST_TARGET = 0.05


def run(environment: Environment) -> Iterator[Result]:
    """Measure both on PostgreSQL, and reads on SQLite."""
    for kind in ("sqlite", "postgresql"):
        with environment.installation(kind, "requests") as installation:
            make_history(installation.database.engine, HISTORY)
            key = installation.admin_key
            reads = [request_bytes("GET", PATH.format(hash_of(number)), key) for number in range(1, VERSIONS + 1)]
            changes = [_repush(number, key) for number in range(1, VERSIONS + 1)]
            port = free_port()
            empty = [sys.executable, "-m", "benchmarks.empty", str(port)]
            with (
                environment.api(installation) as api,
                environment.service("empty", empty, port, "/", installation.variables),
            ):
                yield _compare(environment, f"GET push status, {kind}", api, reads, port, GET_TARGETS[kind])
                if kind == "postgresql":
                    yield _compare(environment, f"POST re-push, {kind}", api, changes, port, POST_TARGET)


def _repush(version: int, key: str) -> bytes:
    # To the registry that the version's first push went to.
    registry = (version - 1) * PUSHES_A_VERSION % 20 + 1
    body = json.dumps({"registry_push_credentials": {"registry_id": id_of(RECORDED, registry)}}).encode()
    return request_bytes("POST", PATH.format(hash_of(version)), key, body)


def _compare(environment: Environment, case: str, api: int, requests: list[bytes], empty: int, target: float) -> Result:
    ours, peers = list[float](), list[float]()
    task = environment.progress.add_task(case, total=RUNS)
    for _ in range(RUNS):
        # Alternately, so that both have the same conditions.
        peers.append(requests_per_second(empty, [request_bytes("GET", "/", "none")], seconds=SECONDS))
        ours.append(requests_per_second(api, requests, seconds=SECONDS))
        environment.progress.advance(task)
    return Result.of(case, ours, "requests/s", target, peer="empty Flask view", peers=peers, more_is_better=True)
