"""Measure calls of a trivial algorithm: the overhead of a warm call, and the duration of a cold one."""

import http.client
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from benchmarks.environment import Environment
from benchmarks.results import Result
from benchmarks.transfers.installation import OWNER, Algorithm, Installation, installation

SOURCE = """from Algorithmia import ADK


def apply(given):
    return given + {number}


ADK(apply).init(0)
"""
WARM_UP = 50
CALLS = 350
COLD_STARTS = 6
MILLISECONDS = 5
COLD_SECONDS = 15
NEXT_COLD_SECONDS = 2
START_SECONDS = 120


def run(environment: Environment) -> Iterator[Result]:
    """Measure calls through the gateway in ms, with a connection each and with one for all; first calls in seconds."""
    directory = environment.directory / "calls"
    directory.mkdir()
    task = environment.progress.add_task("versions to call", total=COLD_STARTS)
    with installation(directory, concurrency=2) as here:
        algorithm = here.new_algorithm(requirements="", source=SOURCE)
        registry_id, _ = here.new_registry()
        cold = []
        for _ in range(COLD_STARTS):
            path = _pushed(here, algorithm, registry_id)
            begun = time.perf_counter()
            _call(_connection(here), here, path)
            cold.append(time.perf_counter() - begun)
            environment.progress.advance(task)
        yield Result.of("first call of a version, every layer pulled", cold[:1], "s", COLD_SECONDS)
        yield Result.of("first call of the next versions, other layers there", cold[1:], "s", NEXT_COLD_SECONDS)
        for case, kept in (("a connection each", None), ("one connection", _connection(here))):
            overhead = [_call(kept or _connection(here), here, path) for _ in range(WARM_UP + CALLS)]
            yield Result.of(f"warm call beyond the algorithm's time, {case}", overhead[WARM_UP:], "ms", MILLISECONDS)


def _pushed(here: Installation, algorithm: Algorithm, registry_id: str) -> str:
    """Return the path of a new version that is in the registry and has no instance yet."""
    commit = algorithm.commit()
    here.until_done(algorithm.compile(commit, registry_id))
    return f"/v1/algo/{OWNER}/{algorithm.name}/{commit}"


def _connection(here: Installation) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(here.url).netloc, timeout=START_SECONDS)


def _call(connection: http.client.HTTPConnection, here: Installation, path: str) -> float:
    """Return the milliseconds of a call minus the time that the algorithm itself took.

    Raises:
        RuntimeError: it was not answered as it should be.
    """
    headers = {"Authorization": f"Simple {here.key}", "Content-Type": "application/json"}
    begun = time.perf_counter()
    connection.request("POST", path, b"1", headers)
    answer = json.loads(connection.getresponse().read())
    took = time.perf_counter() - begun
    if "result" not in answer:
        raise RuntimeError(f"a call was not answered well: {answer}")
    return 1000 * (took - float(answer["metadata"]["duration"]))
